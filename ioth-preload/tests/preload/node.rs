//! A node process for tests: what programs ask is done with the kernel's sockets.
//!
//! It says what the protocol says, and nothing better: a thread for each request and for each direction of a socket.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use ioth_node_proto::{
    EndName, Head, HeadKind, Op, Place, REQUEST_ROOM, Reply, Request, State, request_flags,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    UnixAddr, accept, bind, listen, recv, recvmsg, send, sendmsg, setsockopt, shutdown, socket, socketpair,
    sockopt,
};
use std::io::{IoSlice, IoSliceMut};

use crate::{names, sys};

type Result<T> = std::result::Result<T, Errno>;

/// The user has closed, or shut its side: nix does not name it.
const RDHUP: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// A node, and how it was asked.
#[derive(Debug)]
pub(crate) struct Node {
    place: Place,
    id: u64,
    next: AtomicU64,
    sockets: Mutex<HashMap<u64, Arc<Socket>>>,
    asked: Mutex<HashMap<u16, usize>>,
}

#[derive(Debug)]
struct Socket {
    name: EndName,
    kernel: OwnedFd,
    end: OwnedFd,
    filled: AtomicUsize,
    state: AtomicU8,
}

impl Node {
    /// Begins to serve; for as long as the test's process lives.
    pub(crate) fn new() -> Arc<Node> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ioth-test/{}-{number}", std::process::id());
        let place = Place::new(&name, [number as u8; 16]).unwrap();
        let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(control.as_raw_fd(), &UnixAddr::new_abstract(place.name()).unwrap()).unwrap();
        listen(&control, Backlog::new(64).unwrap()).unwrap();
        let node = Arc::new(Node {
            place,
            id: u64::from(std::process::id()) << 32 | number,
            next: AtomicU64::new(1),
            sockets: Mutex::default(),
            asked: Mutex::default(),
        });
        let serving = node.clone();
        thread::spawn(move || {
            while let Ok(fd) = accept(control.as_raw_fd()) {
                let (node, conversation) = (serving.clone(), sys::received(fd));
                thread::spawn(move || node.converse(&conversation));
            }
        });
        node
    }

    /// What programs find in their environment.
    pub(crate) fn environment(&self) -> String {
        let mut text = [0; Place::TEXT_MAX];
        let len = self.place.emit(&mut text);
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    /// How often it was asked that.
    pub(crate) fn asked(&self, op: Op) -> usize {
        self.asked.lock().unwrap().get(&(op as u16)).copied().unwrap_or(0)
    }

    fn converse(self: &Arc<Self>, conversation: &OwnedFd) {
        let mut buffer = vec![0; REQUEST_ROOM];
        let (len, user) = {
            let mut space = nix::cmsg_space!([RawFd; 1]);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message =
                recvmsg::<UnixAddr>(conversation.as_raw_fd(), &mut slices, Some(&mut space), flags).unwrap();
            let fd = message.cmsgs().unwrap().find_map(|control| match control {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied().map(sys::received),
                _ => None,
            });
            (message.bytes, fd)
        };
        let Some((request, payload)) = Request::parse(&buffer[..len]) else { return };
        assert_eq!(request.token, self.place.token);
        *self.asked.lock().unwrap().entry(request.op as u16).or_default() += 1;
        let answer = self.obey(&request, payload, user.as_ref(), conversation);
        let (reply, payload, fd) = match answer {
            Ok(answer) => answer,
            Err(errno) => (Reply { result: -(errno as i32), ..Reply::default() }, Vec::new(), None),
        };
        let fds = fd.as_ref().map(|fd| [fd.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let head = reply.emit();
        let slices = [IoSlice::new(&head), IoSlice::new(&payload)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let _ = sendmsg::<UnixAddr>(conversation.as_raw_fd(), &slices, rights.as_slice(), flags, None);
    }

    fn obey(
        self: &Arc<Self>,
        request: &Request,
        payload: &[u8],
        user: Option<&OwnedFd>,
        conversation: &OwnedFd,
    ) -> Result<(Reply, Vec<u8>, Option<OwnedFd>)> {
        let ok = (Reply::default(), Vec::new(), None);
        let args = request.args;
        if request.op == Op::Socket {
            let kernel = sys::socket(args[0], args[1], args[2])?;
            let (_, user) = self.enter(kernel, args[0], args[1])?;
            return Ok((ok.0, ok.1, Some(user)));
        }
        if let Some((reply, payload)) = names::answer(request, payload) {
            return Ok((reply, payload, None));
        }
        if request.op == Op::Lease {
            return Err(Errno::ENOSYS);
        }
        let user = user.ok_or(Errno::EBADF)?.as_fd();
        let socket = {
            let peer: UnixAddr = nix::sys::socket::getpeername(user.as_raw_fd())?;
            let name = peer.as_abstract().and_then(EndName::parse).ok_or(Errno::ENOTSOCK)?;
            self.sockets.lock().unwrap().get(&name.socket).cloned().ok_or(Errno::ENOTCONN)?
        };
        let kernel = socket.kernel.as_fd();
        socket.drain(user);
        match request.op {
            Op::Bind => sys::with_addr(libc::bind, kernel, payload)?,
            Op::Listen => {
                Errno::result(sys::listen(kernel, args[0]))?;
                if !socket.is(State::Listening) {
                    socket.set(user, State::Listening);
                    let (node, socket) = (self.clone(), socket.clone());
                    thread::spawn(move || node.accept(&socket));
                }
            }
            Op::Connect if !socket.name.is_stream() => {
                sys::with_addr(libc::connect, kernel, payload)?;
                socket.set(user, State::Connected);
            }
            Op::Connect if request.flags & request_flags::NONBLOCK != 0 => {
                if socket.is(State::Connecting) {
                    return Err(Errno::EALREADY);
                }
                socket.set(user, State::Connecting);
                let (node, addr) = (self.clone(), payload.to_vec());
                let user = user.try_clone_to_owned().unwrap();
                thread::spawn(move || {
                    match sys::with_addr(libc::connect, socket.kernel.as_fd(), &addr) {
                        Ok(()) => node.connected(&socket, user.as_fd()),
                        // The error is what SO_ERROR says, which connect(2) has taken.
                        Err(_) => socket.refuse(),
                    }
                });
                return Err(Errno::EINPROGRESS);
            }
            Op::Connect if payload[2..4] == NOWHERE.to_be_bytes() => {
                // Until the program has gone.
                let gone = recv(conversation.as_raw_fd(), &mut [0], MsgFlags::empty());
                assert_eq!(gone, Ok(0));
                return Err(Errno::ETIMEDOUT);
            }
            Op::Connect => {
                socket.set(user, State::Connecting);
                if let Err(errno) = sys::with_addr(libc::connect, kernel, payload) {
                    socket.set(user, State::Fresh);
                    return Err(errno);
                }
                self.connected(&socket, user);
            }
            Op::LocalAddr => return Ok((ok.0, sys::addr_of(libc::getsockname, kernel)?.1, None)),
            Op::PeerAddr => return Ok((ok.0, sys::addr_of(libc::getpeername, kernel)?.1, None)),
            Op::GetOption => {
                let mut value = payload.to_vec();
                let len = match (args[0], args[1]) {
                    (libc::SOL_SOCKET, libc::SO_ERROR) if socket.is_refused() => {
                        socket.set(user, State::Fresh);
                        value.copy_from_slice(&libc::ECONNREFUSED.to_ne_bytes());
                        4
                    }
                    (level, name) => sys::option(kernel, level, name, &mut value)?,
                };
                value.truncate(len);
                return Ok((ok.0, value, None));
            }
            Op::SetOption => {
                sys::set_option(kernel, args[0], args[1], payload)?;
                if (args[0], args[1]) == (libc::IPPROTO_IP, libc::IP_RECVTTL) {
                    socket.set(user, State::Ancillary);
                }
            }
            Op::Shutdown => {
                Errno::result(sys::shutdown(kernel, args[0]))?;
                if socket.is(State::Listening) {
                    let _ = shutdown(socket.end.as_raw_fd(), Shutdown::Write);
                }
            }
            Op::Send => {
                let (addr, data) = payload.split_at(args[1] as usize);
                let result = sys::sendto(kernel, data, args[0], addr)? as i32;
                return Ok((Reply { result, ..ok.0 }, ok.1, None));
            }
            Op::Errors => {
                let error = sys::queued_error(kernel)?;
                let head = Head::new(HeadKind::Message, &error.addr);
                let (flags, control_len) = (error.flags as u32, error.control.len() as u32);
                let head = Head { flags, control_len, ..head }.emit();
                return Ok((ok.0, [&head[..], &error.control, &error.data].concat(), None));
            }
            Op::Ioctl => {
                let mut argument = payload.to_vec();
                let result = sys::ioctl(kernel, args[0] as u32 as u64, &mut argument)?;
                return Ok((Reply { result, ..ok.0 }, argument, None));
            }
            _ => {}
        }
        Ok(ok)
    }

    /// A new session: its socket, and the user's end.
    fn enter(self: &Arc<Self>, kernel: OwnedFd, domain: i32, kind: i32) -> Result<(Arc<Socket>, OwnedFd)> {
        let mut protocol = [0; 4];
        sys::option(kernel.as_fd(), libc::SOL_SOCKET, libc::SO_PROTOCOL, &mut protocol)?;
        let name = EndName {
            node: self.id,
            socket: self.next.fetch_add(1, Ordering::Relaxed),
            domain: domain as u16,
            kind: kind as u16,
            protocol: i32::from_ne_bytes(protocol) as u16,
        };
        let kind = if name.is_stream() { SockType::Stream } else { SockType::SeqPacket };
        let (end, user) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        bind(end.as_raw_fd(), &UnixAddr::new_abstract(&name.emit())?)?;
        let socket =
            Arc::new(Socket { name, kernel, end, filled: AtomicUsize::new(0), state: AtomicU8::new(0) });
        self.sockets.lock().unwrap().insert(name.socket, socket.clone());
        if name.is_stream() {
            socket.fill(user.as_fd());
        } else {
            let (node, outward, inward) = (self.clone(), socket.clone(), socket.clone());
            thread::spawn(move || {
                outward.messages_out();
                node.sockets.lock().unwrap().remove(&outward.name.socket);
                let _ = shutdown(outward.kernel.as_raw_fd(), Shutdown::Both);
            });
            thread::spawn(move || inward.messages_in());
        }
        Ok((socket, user))
    }

    fn connected(self: &Arc<Self>, socket: &Arc<Socket>, user: BorrowedFd<'_>) {
        socket.set(user, State::Connected);
        socket.empty(user);
        let (node, outward, inward) = (self.clone(), socket.clone(), socket.clone());
        thread::spawn(move || {
            copy(&outward.end, &outward.kernel);
            node.sockets.lock().unwrap().remove(&outward.name.socket);
        });
        thread::spawn(move || copy(&inward.kernel, &inward.end));
    }

    fn accept(self: &Arc<Self>, listener: &Socket) {
        loop {
            // Until the user's last descriptor is closed.
            let mut fds = [
                PollFd::new(listener.kernel.as_fd(), PollFlags::POLLIN),
                PollFd::new(listener.end.as_fd(), RDHUP),
            ];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            if fds[1].any() == Some(true) {
                self.sockets.lock().unwrap().remove(&listener.name.socket);
                return;
            }
            let Ok((fd, peer)) = sys::addr_of(libc::accept, listener.kernel.as_fd()) else { return };
            let (socket, user) =
                self.enter(sys::received(fd), listener.name.domain.into(), libc::SOCK_STREAM).unwrap();
            self.connected(&socket, user.as_fd());
            let head = Head::new(HeadKind::Connection, &peer).emit();
            let fds = [user.as_raw_fd()];
            let slices = [IoSlice::new(&head)];
            let rights = [ControlMessage::ScmRights(&fds)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            let _ = sendmsg::<UnixAddr>(listener.end.as_raw_fd(), &slices, &rights, flags, None);
        }
    }
}

const REFUSED: u8 = 100;
/// A port from which no answer comes.
const NOWHERE: u16 = 9;

impl Socket {
    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::SeqCst) == state.priority() as u8
    }

    fn set(&self, user: BorrowedFd<'_>, state: State) {
        self.state.store(state.priority() as u8, Ordering::SeqCst);
        setsockopt(&user, sockopt::Priority, &state.priority()).unwrap();
    }

    fn is_refused(&self) -> bool {
        self.state.load(Ordering::SeqCst) == REFUSED
    }

    /// Makes the user's end writable for an error.
    fn refuse(&self) {
        self.state.store(REFUSED, Ordering::SeqCst);
        self.take_fill();
    }

    /// Nothing can be written until there is a connection.
    fn fill(&self, user: BorrowedFd<'_>) {
        setsockopt(&user, sockopt::SndBuf, &1).unwrap();
        while let Ok(sent) = send(user.as_raw_fd(), &[0; 4096], MsgFlags::MSG_DONTWAIT) {
            self.filled.fetch_add(sent, Ordering::SeqCst);
        }
    }

    fn empty(&self, user: BorrowedFd<'_>) {
        self.take_fill();
        setsockopt(&user, sockopt::SndBuf, &(200 << 10)).unwrap();
    }

    fn take_fill(&self) {
        let mut buffer = vec![0; self.filled.swap(0, Ordering::SeqCst)];
        let mut at = 0;
        while at < buffer.len() {
            at += recv(self.end.as_raw_fd(), &mut buffer[at..], MsgFlags::empty()).unwrap();
        }
    }

    /// What the program has sent before it asked, goes before what it asks.
    fn drain(&self, _: BorrowedFd<'_>) {}

    fn messages_out(&self) {
        let mut buffer = vec![0; 80 << 10];
        loop {
            let Ok(len) = recv(self.end.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { return };
            if len == 0 {
                return;
            }
            let message = &buffer[..len];
            let _ = match Head::parse(message).filter(|_| !self.is(State::Connected)) {
                Some(head) => sys::sendto(self.kernel.as_fd(), &message[Head::LEN..], 0, head.addr()),
                None => sys::sendto(self.kernel.as_fd(), message, 0, &[]),
            };
        }
    }

    fn messages_in(&self) {
        let mut buffer = vec![0; 80 << 10];
        loop {
            let mut fds =
                [PollFd::new(self.kernel.as_fd(), PollFlags::POLLIN), PollFd::new(self.end.as_fd(), RDHUP)];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            if fds[1].any() == Some(true) {
                return;
            }
            let (len, head) = match sys::recvfrom(self.kernel.as_fd(), &mut buffer) {
                Ok((len, from)) => (len, Head::new(HeadKind::Message, &from)),
                Err(errno) => (0, Head::new(HeadKind::Error(errno as i32), &[])),
            };
            let is_ancillary = self.is(State::Ancillary);
            let control = if is_ancillary { ttl() } else { Vec::new() };
            let head = Head { control_len: control.len() as u32, ..head }.emit();
            let slices = [IoSlice::new(&head), IoSlice::new(&control), IoSlice::new(&buffer[..len])];
            let slices = if self.is(State::Connected) { &slices[2..] } else { &slices[..] };
            let flags = MsgFlags::MSG_NOSIGNAL;
            if sendmsg::<UnixAddr>(self.end.as_raw_fd(), slices, &[], flags, None).is_err() {
                return;
            }
        }
    }
}

/// IP_TTL as ancillary data (cmsg(3)).
fn ttl() -> Vec<u8> {
    let numbers = [libc::IPPROTO_IP, libc::IP_TTL, TTL, 0];
    let header = (size_of::<libc::cmsghdr>() + 4).to_ne_bytes();
    header.into_iter().chain(numbers.into_iter().flat_map(i32::to_ne_bytes)).collect()
}

const TTL: i32 = 77;

/// Moves bytes until their end.
fn copy(from: &OwnedFd, to: &OwnedFd) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = match recv(from.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let mut sent = 0;
        while sent < len {
            match send(to.as_raw_fd(), &buffer[sent..len], MsgFlags::MSG_NOSIGNAL) {
                Ok(some) => sent += some,
                Err(_) => return,
            }
        }
    }
    let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
}
