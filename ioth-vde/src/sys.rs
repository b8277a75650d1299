//! The system calls that nix has no fitting wrapper for.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use ioth_core::Errno;
use nix::poll::PollFd;
use nix::sys::socket::SockaddrLike;
use nix::sys::time::TimeSpec;

use crate::{Batch, Frame};

/// Datagrams that go through one system call at most.
pub(crate) const BATCH: usize = 64;

/// Waits as ppoll(2): whether one of them is ready.
pub(crate) fn poll(waits: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<bool, Errno> {
    let timeout = timeout.map(TimeSpec::from);
    let timeout: *const libc::timespec = timeout.as_ref().map_or(ptr::null(), |timeout| timeout.as_ref());
    // The C library's is a point of cancellation for threads, which must not end in the middle of a call of ours.
    // SAFETY: a PollFd is a pollfd (the type is transparent), `waits` has as many of them as is said, and a timespec, if any,
    // lives until the call returns; there is no signal mask.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ppoll,
            waits.as_mut_ptr(),
            waits.len(),
            timeout,
            ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    Errno::result(result).map(|count| count > 0)
}

/// Sends frames from the front of the batch as datagrams, without waiting: how many went.
pub(crate) fn send(fd: BorrowedFd<'_>, frames: &Batch) -> Result<usize, Errno> {
    if let [frame] = frames.as_slices().0 {
        // The common case needs no table of messages.
        return send_one(fd, frame);
    }
    let mut vectors = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
    let mut count = 0;
    for (vector, frame) in vectors.iter_mut().zip(frames) {
        // sendmmsg(2) does not write through the pointer, whatever its type says.
        *vector = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        count += 1;
    }
    let mut messages = messages(&mut vectors[..count]);
    // There is no safe way to name the vectors by pointers.
    // SAFETY: the messages point to one vector each, and those to frames that outlive the call.
    unsafe { send_messages(fd, &mut messages[..count]) }
}

/// Sends a datagram, without waiting: that one went.
fn send_one(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // nix's send takes a number for a descriptor.
    // SAFETY: the pointer and length are those of a live slice, which is only read.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    Errno::result(sent).map(|_| 1)
}

/// Sends messages, without waiting: how many went.
///
/// # Safety
/// All pointers of the messages are null with a length of zero, or to as much as they say that may be read during the call.
unsafe fn send_messages(fd: BorrowedFd<'_>, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let count = messages.len() as libc::c_uint;
    // nix's sendmmsg wants its own address and buffer types, a vector of each.
    // SAFETY: the table is as long as said; what it points to is the caller's to answer for, and is not written to.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, flags as _) };
    Errno::result(sent).map(|sent| sent as usize)
}

/// Receives into messages, without waiting: how many came. `lengths` tells how long they were.
///
/// # Safety
/// As with [`send_messages`], and all that the pointers point to may be written to, by nobody else meanwhile.
unsafe fn receive_messages(
    fd: BorrowedFd<'_>,
    messages: &mut [libc::mmsghdr],
    lengths: &mut [usize; BATCH],
) -> Result<usize, Errno> {
    // MSG_TRUNC as a flag: report the datagram's own length.
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let (table, count) = (messages.as_mut_ptr(), messages.len() as libc::c_uint);
    // nix's recvmmsg wants its own address and buffer types, a vector of each.
    // SAFETY: the table is as long as said, a null pointer is no time-out; the rest is the caller's to answer for.
    let received = unsafe { libc::recvmmsg(fd.as_raw_fd(), table, count, flags as _, std::ptr::null_mut()) };
    let received = Errno::result(received)? as usize;
    for (length, message) in lengths.iter_mut().zip(&messages[..received]) {
        *length = message.msg_len as usize;
    }
    Ok(received)
}

/// Receives a datagram into each of the frames in turn, without waiting: how many came.
///
/// `lengths` tells how long the datagrams were; one that is longer than its frame was cut.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    frames: &mut [Frame],
    lengths: &mut [usize; BATCH],
) -> Result<usize, Errno> {
    let mut vectors = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
    let count = frames.len().min(BATCH);
    for (vector, frame) in vectors.iter_mut().zip(frames) {
        *vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    }
    let mut messages = messages(&mut vectors[..count]);
    // There is no safe way to name the vectors by pointers.
    // SAFETY: the messages point to one vector each, and those to distinct frames, which are mutably borrowed.
    unsafe { receive_messages(fd, &mut messages[..count], lengths) }
}

/// One message a vector, without address and ancillary data.
fn messages(vectors: &mut [libc::iovec]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: all zeros is a valid mmsghdr: null pointers with zero lengths. (It has private padding on some
    // targets, so it cannot be written as a literal.)
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (message, vector) in messages.iter_mut().zip(vectors) {
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    messages
}

/// A descriptor for a process, readable when it has ended (since Linux 5.3).
pub(crate) fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    // Neither libc nor nix has a function for it.
    // SAFETY: two numbers are passed; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the descriptor is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process of a descriptor: never to a younger one with its number.
pub(crate) fn pidfd_signal(fd: BorrowedFd<'_>, signal: libc::c_int) -> Result<(), Errno> {
    // Neither libc nor nix has a function for it.
    // SAFETY: three numbers and a null pointer are passed, which stands for a siginfo_t as kill(2) makes it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// As [`send`], each frame with `prefix` before it, and to an address of its own: the last of `to` is for all that follow.
pub(crate) fn send_to(
    fd: BorrowedFd<'_>,
    prefix: &[u8],
    frames: &Batch,
    to: &[impl SockaddrLike],
) -> Result<usize, Errno> {
    let Some(last) = to.last() else { return Ok(0) };
    let mut vectors = [[const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; 2]; BATCH];
    // SAFETY: as in `messages`.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    for (at, frame) in frames.iter().take(BATCH).enumerate() {
        let address = to.get(at).unwrap_or(last);
        // sendmmsg(2) writes through none of the pointers, whatever their types say.
        vectors[at] = [
            libc::iovec { iov_base: prefix.as_ptr().cast_mut().cast(), iov_len: prefix.len() },
            libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() },
        ];
        let header = &mut messages[at].msg_hdr;
        header.msg_iov = vectors[at].as_mut_ptr();
        header.msg_iovlen = 2;
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len();
        count += 1;
    }
    // There is no safe way to name the vectors by pointers.
    // SAFETY: the messages point to two vectors and an address each, and the vectors to `prefix` and to frames; all of
    // them outlive the call.
    unsafe { send_messages(fd, &mut messages[..count]) }
}

/// A datagram in up to three pieces: a frame whose tag is put in or taken out on the way.
pub(crate) type Pieces<'a> = [IoSlice<'a>; 3];

/// Sends datagrams, [`BATCH`] at most, without waiting: how many went. Those of one piece have it in front.
pub(crate) fn send_pieces(fd: BorrowedFd<'_>, datagrams: &[Pieces<'_>]) -> Result<usize, Errno> {
    if let [[whole, second, _]] = datagrams
        && second.is_empty()
    {
        return send_one(fd, whole);
    }
    // SAFETY: all zeros is a valid mmsghdr; see `messages`.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    for (message, pieces) in messages.iter_mut().zip(datagrams) {
        // IoSlice has the layout of iovec, says its documentation; sendmmsg(2) does not write through the pointer.
        message.msg_hdr.msg_iov = pieces.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_iovlen = if pieces[1].is_empty() { 1 } else { pieces.len() };
        count += 1;
    }
    // There is no safe way to name the vectors by pointers.
    // SAFETY: the messages point to vectors of live slices, which outlive the call.
    unsafe { send_messages(fd, &mut messages[..count]) }
}

/// As [`receive`]; `senders` tells where the datagrams came from, `None` for an address of another family than IP's.
pub(crate) fn receive_from(
    fd: BorrowedFd<'_>,
    frames: &mut [Frame],
    lengths: &mut [usize; BATCH],
    senders: &mut [Option<SocketAddr>; BATCH],
) -> Result<usize, Errno> {
    let mut vectors = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; BATCH];
    // SAFETY: all zeros is a valid sockaddr_in6: numbers only.
    let mut names: [libc::sockaddr_in6; BATCH] = unsafe { std::mem::zeroed() };
    let count = frames.len().min(BATCH);
    for (vector, frame) in vectors.iter_mut().zip(frames) {
        *vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    }
    let mut messages = messages(&mut vectors[..count]);
    for (message, name) in messages[..count].iter_mut().zip(&mut names) {
        message.msg_hdr.msg_name = (&raw mut *name).cast();
        message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    }
    // There is no safe way to name the vectors by pointers.
    // SAFETY: as in `receive`; beside it each message points to a name of its own, of the length that it says.
    let received = unsafe { receive_messages(fd, &mut messages[..count], lengths)? };
    for (sender, name) in senders.iter_mut().zip(&names[..received]) {
        *sender = match i32::from(name.sin6_family) {
            libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
                name.sin6_addr.s6_addr.into(),
                u16::from_be(name.sin6_port),
                0,
                name.sin6_scope_id,
            ))),
            libc::AF_INET => {
                // An address of IPv4 has its port where IPv6 has it, and itself where IPv6 has the flow.
                let octets = name.sin6_flowinfo.to_ne_bytes();
                Some(SocketAddr::V4(SocketAddrV4::new(octets.into(), u16::from_be(name.sin6_port))))
            }
            _ => None,
        };
    }
    Ok(received)
}

/// Takes a descriptor that the program inherited, by its number: a new one in its place, which is closed on exec.
pub(crate) fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // There is no safe way to name a descriptor by its number; whoever writes the VNL vouches for it.
    // SAFETY: duplicating changes no other descriptor, and fails with EBADF when nothing is there.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the descriptor is new, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the VNL hands the number over: nobody else uses it from now on.
    Errno::result(unsafe { libc::close(number) })?;
    Ok(fd)
}

/// The type of the socket of this number (`SO_TYPE`).
pub(crate) fn socket_type(number: RawFd) -> Result<libc::c_int, Errno> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // nix wants a descriptor that is known to be open.
    // SAFETY: the kernel writes at most `len` bytes to `kind`, which has that size, and the length to `len`.
    let result = unsafe {
        libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len)
    };
    Errno::result(result).map(|_| kind)
}

/// The further groups of the process that called by this connection, when it did (`SO_PEERGROUPS`, since Linux 4.13).
pub(crate) fn peer_groups(fd: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut len = size_of_val(&*groups) as libc::socklen_t;
        // nix has no such option.
        // SAFETY: the kernel writes at most `len` bytes to the table, which has that size, and the length to `len`.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<libc::gid_t>();
        match Errno::result(result) {
            // The length says how many there are, and does not change any more.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(errno) => return Err(errno),
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
        }
    }
}

/// Takes a caller off a listening socket, without waiting when that does not.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // nix's accept4 returns a number.
    // SAFETY: no address is asked for: two null pointers and two numbers are passed.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    };
    let fd = Errno::result(fd)?;
    // SAFETY: the descriptor is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a connected datagram socket one that is not: whoever wants may send to it again.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // nix has no address of the family AF_UNSPEC.
    // SAFETY: all zeros is a valid sockaddr, of the family AF_UNSPEC; the kernel reads no more than its size.
    let done = unsafe {
        let nobody: libc::sockaddr = std::mem::zeroed();
        libc::connect(fd.as_raw_fd(), &raw const nobody, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    Errno::result(done).map(drop)
}

mod ioctl {
    //! Requests of linux/if_tun.h that libc does not name. (tun-rs and tun-tap make devices; neither hands over the
    //! frames with their headers, so little would be left for them but these two calls.)

    nix::ioctl_readwrite_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        tun_set_offload,
        nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>())
    );
    nix::ioctl_write_ptr_bad!(
        tun_set_carrier,
        nix::request_code_write!(b'T', 226, size_of::<libc::c_int>()),
        libc::c_int
    );
    nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, size_of::<libc::c_int>()));
    nix::ioctl_readwrite_bad!(interface_mtu, libc::SIOCGIFMTU as libc::c_ulong, libc::ifreq);
}

/// A request about an interface. The name is one that fits, checked by the caller.
fn request(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: all zeros is a valid ifreq: bytes, numbers and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Makes the descriptor a queue of an interface (`TUNSETIFF`); an empty name means a new one. The interface's name.
pub(crate) fn tun_set_interface(fd: BorrowedFd<'_>, name: &str, kind: libc::c_int) -> Result<String, Errno> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = kind as libc::c_short;
    // There is no safe wrapper. The kernel writes the name back, whatever the request's number says of that.
    // SAFETY: the pointer is that of an ifreq that lives during the call, and may be written to.
    unsafe { ioctl::tun_set_iff(fd.as_raw_fd(), &raw mut request)? };
    let name = request.ifr_name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0);
    Ok(String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned())
}

/// Says what the kernel may leave undone in what it sends us (`TUNSETOFFLOAD`).
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, features: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: a number is passed.
    unsafe { ioctl::tun_set_offload(fd.as_raw_fd(), features as libc::c_int) }.map(drop)
}

/// Says whether there is a network at the other end (`TUNSETCARRIER`).
pub(crate) fn tun_set_carrier(fd: BorrowedFd<'_>, carrier: bool) -> Result<(), Errno> {
    let carrier = libc::c_int::from(carrier);
    // SAFETY: the pointer is that of a number that lives during the call, which only reads it.
    unsafe { ioctl::tun_set_carrier(fd.as_raw_fd(), &raw const carrier) }.map(drop)
}

/// Has the interface outlive its descriptors (`TUNSETPERSIST`).
pub(crate) fn tun_set_persistent(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a number is passed.
    unsafe { ioctl::tun_set_persist(fd.as_raw_fd(), 1) }.map(drop)
}

/// An interface's MTU, in bytes (`SIOCGIFMTU`).
pub(crate) fn interface_mtu(name: &str) -> Result<usize, Errno> {
    let mut request = request(name)?;
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: the pointer is that of an ifreq that lives during the call, and may be written to.
    unsafe { ioctl::interface_mtu(socket.as_raw_fd(), &raw mut request)? };
    // SAFETY: this request fills in this part of the union, a number.
    Ok(usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
}

/// Sets a socket's option, whose value is a plain C type.
pub(crate) fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> Result<(), Errno> {
    // nix has no types for these with an interface's index.
    // SAFETY: the kernel reads as many bytes as `value` has, and keeps no pointer to it.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(done).map(drop)
}
