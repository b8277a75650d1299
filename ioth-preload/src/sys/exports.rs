//! The functions that programs call, instead of the C library's of the same names.
//!
//! Each keeps the C library's contract: -1 and errno, or a result and errno as it was. What a manual page asks of a
//! caller, these ask as well: pointers are the program's own, or wrong ones that the kernel would find out.

use std::ffi::{c_int, c_uint, c_ulong, c_void};

use ioth_node_calls::sys::raw;
use ioth_node_calls::{User, calls, data, ioctl, options};
use libc::{iovec, mmsghdr, msghdr, sockaddr, socklen_t, ssize_t, timespec};

use super::reading;
use super::start::client;
use super::{returns, user};

exports! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        returns(|| calls::socket(client(), domain, kind, protocol))
    }

    fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| calls::bind(client(), fd, unsafe { user(addr) }, len))
    }

    fn listen(fd: c_int, backlog: c_int) -> c_int {
        returns(|| calls::listen(client(), fd, backlog))
    }

    fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| calls::connect(client(), fd, unsafe { user(addr) }, len))
    }

    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| calls::accept4(client(), fd, unsafe { user(addr) }, unsafe { User::new(len) }, 0))
    }

    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| calls::accept4(client(), fd, unsafe { user(addr) }, unsafe { User::new(len) }, flags))
    }

    fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| calls::getsockname(client(), fd, unsafe { user(addr) }, unsafe { User::new(len) }))
    }

    fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| calls::getpeername(client(), fd, unsafe { user(addr) }, unsafe { User::new(len) }))
    }

    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| options::get(client(), fd, level, name, unsafe { user(value) }, unsafe { User::new(len) }))
    }

    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| options::set(client(), fd, level, name, unsafe { user(value) }, len))
    }

    fn shutdown(fd: c_int, how: c_int) -> c_int {
        returns(|| calls::shutdown(client(), fd, how))
    }

    fn send(fd: c_int, bytes: *const c_void, len: usize, flags: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        returns(|| data::sendto(client(), fd, unsafe { user(bytes) }, len, flags, User::NULL, 0))
    }

    fn sendto(
        fd: c_int,
        bytes: *const c_void,
        len: usize,
        flags: c_int,
        addr: *const sockaddr,
        addr_len: socklen_t,
    ) -> ssize_t {
        // SAFETY: the caller's promise.
        returns(|| data::sendto(client(), fd, unsafe { user(bytes) }, len, flags, unsafe { user(addr) }, addr_len))
    }

    fn sendmsg(fd: c_int, header: *const msghdr, flags: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        returns(|| data::sendmsg(client(), fd, unsafe { User::new(header) }, flags))
    }

    fn sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| data::sendmmsg(client(), fd, unsafe { User::new(list) }, count, flags))
    }

    fn recv(fd: c_int, room: *mut c_void, len: usize, flags: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        returns(|| data::recvfrom(client(), fd, unsafe { user(room) }, len, flags, User::NULL, User::NULL))
    }

    fn recvfrom(
        fd: c_int,
        room: *mut c_void,
        len: usize,
        flags: c_int,
        addr: *mut sockaddr,
        addr_len: *mut socklen_t,
    ) -> ssize_t {
        // SAFETY: the caller's promise.
        let (room, addr, addr_len) = unsafe { (user(room), user(addr), User::new(addr_len)) };
        returns(|| data::recvfrom(client(), fd, room, len, flags, addr, addr_len))
    }

    fn recvmsg(fd: c_int, header: *mut msghdr, flags: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        returns(|| data::recvmsg(client(), fd, unsafe { User::new(header) }, flags))
    }

    fn recvmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int {
        // SAFETY: the caller's promise.
        let (list, timeout) = unsafe { (User::new(list), User::new(timeout)) };
        returns(|| data::recvmmsg(client(), fd, list, count, flags, timeout))
    }

    /// What is read costs nothing but the call; only the end of a connection is looked at, for a reset is not told by it.
    fn read(fd: c_int, room: *mut c_void, len: usize) -> ssize_t {
        // SAFETY: the caller's promise.
        match unsafe { reading::read(fd, room, len) } {
            0 if len > 0 => returns(|| data::check_read_end(client(), fd)),
            got => got,
        }
    }

    fn readv(fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        match unsafe { reading::readv(fd, list, count) } {
            0 if count > 0 => returns(|| data::check_read_end(client(), fd)),
            got => got,
        }
    }

    /// `read` as programs compiled with _FORTIFY_SOURCE call it.
    fn __read_chk(fd: c_int, room: *mut c_void, len: usize, room_len: usize) -> ssize_t {
        if len > room_len {
            raw::chk_fail();
        }
        // SAFETY: the caller's promise.
        unsafe { read(fd, room, len) }
    }

    /// `recv` as programs compiled with _FORTIFY_SOURCE call it.
    fn __recv_chk(fd: c_int, room: *mut c_void, len: usize, room_len: usize, flags: c_int) -> ssize_t {
        if len > room_len {
            raw::chk_fail();
        }
        // SAFETY: the caller's promise.
        returns(|| data::recvfrom(client(), fd, unsafe { user(room) }, len, flags, User::NULL, User::NULL))
    }

    /// `recvfrom` as programs compiled with _FORTIFY_SOURCE call it.
    fn __recvfrom_chk(
        fd: c_int,
        room: *mut c_void,
        len: usize,
        room_len: usize,
        flags: c_int,
        addr: *mut sockaddr,
        addr_len: *mut socklen_t,
    ) -> ssize_t {
        if len > room_len {
            raw::chk_fail();
        }
        // SAFETY: the caller's promise.
        let (room, addr, addr_len) = unsafe { (user(room), user(addr), User::new(addr_len)) };
        returns(|| data::recvfrom(client(), fd, room, len, flags, addr, addr_len))
    }

    /// The C library's takes a variable argument, which is passed as a third one is on the systems that this is for.
    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        // SAFETY: the caller's promise.
        returns(|| ioctl::ioctl(client(), fd, request, unsafe { user(argument) }))
    }
}

// Other names of the same, which the C library has as well.
exports! {
    fn __socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        // SAFETY: numbers.
        unsafe { socket(domain, kind, protocol) }
    }

    fn __connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { connect(fd, addr, len) }
    }

    fn __send(fd: c_int, bytes: *const c_void, len: usize, flags: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        unsafe { send(fd, bytes, len, flags) }
    }

    fn __recv(fd: c_int, room: *mut c_void, len: usize, flags: c_int) -> ssize_t {
        // SAFETY: the caller's promise.
        unsafe { recv(fd, room, len, flags) }
    }

    fn __read(fd: c_int, room: *mut c_void, len: usize) -> ssize_t {
        // SAFETY: the caller's promise.
        unsafe { read(fd, room, len) }
    }

    fn __sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { sendmmsg(fd, list, count, flags) }
    }
}
