//! `libioth_preload.so`: turns a program's socket calls into requests to its node process.
//!
//! The dynamic linker puts it before the C library (`LD_PRELOAD`), and [`ioth_node_proto::ENV`] says where the node is.
//! Without that variable all calls go to the kernel, as if the library were not there.
//!
//! ```text
//!   the program                      write, read, poll, dup, close, ...: the kernel's own
//!      │ socket, connect, recvmsg, ...                        │
//!   sys::exports    errno, pointers                           │
//!      │          names: what the C library would look up      │
//!   ioth_node_calls: what each call is                        │
//!      │                                                      │
//!      ▼                                                      ▼
//!   the node process ═══ node's end ═══════════════════ user's end
//! ```
//!
//! There is no engine, thread or lock here, no memory is taken but what the program frees, and nothing is kept by descriptor
//! number: descriptors come and go by fork, exec, dup and SCM_RIGHTS, and what one of them is, is asked of the kernel
//! each time (`ioth_node_calls`). So every function is as safe in signal handlers, threads and forked children as the system call.
//!
//! What it cannot do: see system calls of programs that make them by themselves (static and Go binaries, io_uring), or
//! anything of set-uid programs.
#![deny(unsafe_code)]

mod names;
mod sys;
