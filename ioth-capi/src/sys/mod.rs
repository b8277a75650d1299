//! The functions that C calls: pointers in, slices on. The only place with unsafe code.
//!
//! A function here looks at its pointers and lengths as Linux does ([`memory`]), calls what does the work, and
//! gives errno and the return value ([`crate::outcome`]).
#![allow(unsafe_code)]

mod calls;
mod config;
mod data;
mod exit;
mod hashaddr;
mod ifaddrs;
mod ioctl;
mod links;
mod memory;
mod message;
mod stacks;
mod variadic;

use std::ffi::c_int;

use ioth::berkeley;

use crate::outcome::{Failure, Outcome, Result, run};

pub(crate) use exit::{kernel_domain, kernel_network, register as register_exit};

/// `struct ioth`, which C programs only point to.
#[repr(C)]
pub(crate) struct Ioth {
    opaque: [u8; 0],
}

/// [`run`] for a call with a descriptor: that it is none of ours goes before what is wrong with the pointers.
fn run_on<T: Outcome>(fd: c_int, body: impl FnOnce() -> Result<T>) -> T {
    run(|| {
        body().map_err(|failure| match failure {
            Failure(libc::EFAULT | libc::EINVAL | libc::EMSGSIZE)
                if berkeley::fcntl(fd, libc::F_GETFD, 0).is_err() =>
            {
                Failure(libc::EBADF)
            }
            failure => failure,
        })
    })
}
