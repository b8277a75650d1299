//! The host's kernel as a stack: the node that the process would be without libioth, or one in a namespace of its own.
//!
//! [`KernelStack`] and [`Vdestack`](vdestack::Vdestack) hand out [`KernelSocket`]s, which are sockets of the kernel behind
//! [`ioth_core::Socket`]; [`factory`] and [`vdestack::factory`] make the backends known to a registry. [`calls`] has the
//! system calls themselves, over any descriptor.
//!
//! ```
//! use ioth_core::{Domain, SocketType, Stack};
//!
//! let stack = ioth_kernel::KernelStack::new();
//! let socket = stack.socket(Domain::INET, SocketType::DGRAM, 0)?;
//! socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
//! # Ok::<(), ioth_core::Errno>(())
//! ```
//!
//! What `KernelStack` does not do: interfaces and addresses are the host's, so virtual network locators are
//! ignored; nothing is isolated. `Vdestack` has its own, behind any link of `ioth-vde`.
#![deny(unsafe_code)]

mod attend;
pub mod calls;
mod socket;
mod stack;
mod sys;
pub mod vdestack;

pub use socket::KernelSocket;
pub use stack::{KernelStack, factory};
