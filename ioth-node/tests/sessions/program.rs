//! A program's side of the protocol, written out.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ioth::conf::Resolver;
use ioth::{Errno, SockAddr, Stack};
use ioth_node::{ServeError, Setup, serve};
use ioth_node_proto::{Head, HeadKind, Op, Place, Reply, Request, State, request_flags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    bind, connect, getsockopt, listen, recv, recvmsg, sendmsg, socket, sockopt,
};

use crate::sys;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node process's work in a thread, with the lease that keeps it going.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) lease: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Node {
    /// A node with loopback and nothing else.
    pub(crate) fn start() -> Node {
        Node::start_with(Resolver::default())
    }

    /// The same with name servers and domains.
    pub(crate) fn start_with(resolver: Resolver) -> Node {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ioth-test/{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let place = Place::new(&name, [7; 16]).unwrap();
        let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(control.as_raw_fd(), &UnixAddr::new_abstract(place.name()).unwrap()).unwrap();
        listen(&control, Backlog::new(64).unwrap()).unwrap();
        let (lease, ours) = nix::unistd::pipe().unwrap();
        let stack = Stack::new("stack=smoltcp").unwrap();
        let setup = Setup { stack, resolver, place, control, lease };
        Node { place, lease: Some(ours), thread: Some(std::thread::spawn(|| serve(setup))) }
    }

    /// One request and its reply.
    pub(crate) fn ask(
        &self,
        op: Op,
        flags: u32,
        args: &[i32],
        payload: &[u8],
        user: Option<BorrowedFd<'_>>,
    ) -> Result<(i32, Vec<u8>, Option<OwnedFd>), Errno> {
        let conversation = self.converse();
        self.tell(&conversation, op, flags, args, payload, user);
        self.hear(&conversation)
    }

    pub(crate) fn converse(&self) -> OwnedFd {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new_abstract(self.place.name()).unwrap()).unwrap();
        fd
    }

    pub(crate) fn tell(
        &self,
        conversation: &OwnedFd,
        op: Op,
        flags: u32,
        args: &[i32],
        payload: &[u8],
        user: Option<BorrowedFd<'_>>,
    ) {
        let mut four = [0; 4];
        four[..args.len()].copy_from_slice(args);
        let request = Request { op, flags, args: four, token: self.place.token }.emit();
        let fds = user.map(|user| [user.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let slices = [IoSlice::new(&request), IoSlice::new(payload)];
        sendmsg::<UnixAddr>(conversation.as_raw_fd(), &slices, rights.as_slice(), MsgFlags::empty(), None)
            .unwrap();
    }

    pub(crate) fn hear(&self, conversation: &OwnedFd) -> Result<(i32, Vec<u8>, Option<OwnedFd>), Errno> {
        let (reply, payload, fd) = hear(conversation);
        match reply.result {
            error if error < 0 => Err(Errno::from_raw(-error)),
            result => Ok((result, payload, fd)),
        }
    }

    /// The whole reply, and its payload.
    pub(crate) fn reply(&self, conversation: &OwnedFd) -> (Reply, Vec<u8>) {
        let (reply, payload, _) = hear(conversation);
        (reply, payload)
    }

    pub(crate) fn socket(&self, domain: i32, kind: i32) -> OwnedFd {
        self.ask(Op::Socket, 0, &[domain, kind, 0], &[], None).unwrap().2.expect("a descriptor")
    }

    pub(crate) fn tcp(&self) -> OwnedFd {
        self.socket(libc::AF_INET, libc::SOCK_STREAM)
    }

    pub(crate) fn udp(&self) -> OwnedFd {
        self.socket(libc::AF_INET, libc::SOCK_DGRAM)
    }

    pub(crate) fn bind(&self, fd: &OwnedFd, port: u16) -> SocketAddr {
        let addr = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], port)));
        self.ask(Op::Bind, 0, &[], &addr.to_raw(), Some(fd.as_fd())).unwrap();
        self.name(fd, Op::LocalAddr).unwrap()
    }

    pub(crate) fn listen(&self, backlog: i32) -> (OwnedFd, SocketAddr) {
        let listener = self.tcp();
        let addr = self.bind(&listener, 0);
        self.ask(Op::Listen, 0, &[backlog], &[], Some(listener.as_fd())).unwrap();
        (listener, addr)
    }

    pub(crate) fn connect(&self, fd: &OwnedFd, addr: SocketAddr, nonblocking: bool) -> Result<(), Errno> {
        let flags = if nonblocking { request_flags::NONBLOCK } else { 0 };
        let addr = SockAddr::from(addr).to_raw();
        self.ask(Op::Connect, flags, &[], &addr, Some(fd.as_fd())).map(|_| ())
    }

    /// A connection: the client's end and the server's.
    pub(crate) fn connection(&self) -> (OwnedFd, OwnedFd) {
        let (listener, addr) = self.listen(8);
        let client = self.tcp();
        self.connect(&client, addr, false).unwrap();
        let (server, _) = accept(&listener);
        (client, server)
    }

    pub(crate) fn name(&self, fd: &OwnedFd, op: Op) -> Result<SocketAddr, Errno> {
        let (_, raw, _) = self.ask(op, 0, &[], &[], Some(fd.as_fd()))?;
        Ok(SockAddr::from_raw(&raw).unwrap().as_ip().unwrap())
    }

    pub(crate) fn error(&self, fd: &OwnedFd) -> Option<Errno> {
        let args = [libc::SOL_SOCKET, libc::SO_ERROR, 4];
        let (_, value, _) = self.ask(Op::GetOption, 0, &args, &[], Some(fd.as_fd())).unwrap();
        match i32::from_ne_bytes(value.try_into().unwrap()) {
            0 => None,
            error => Some(Errno::from_raw(error)),
        }
    }

    /// Gives the lease back, and waits for the node's end.
    pub(crate) fn end(mut self) {
        self.lease = None;
        let thread = self.thread.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "the node does not end");
            std::thread::yield_now();
        }
        thread.join().unwrap().unwrap();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().unwrap().is_finished()
    }
}

fn hear(conversation: &OwnedFd) -> (Reply, Vec<u8>, Option<OwnedFd>) {
    await_events(conversation.as_fd(), PollFlags::POLLIN);
    let mut buffer = vec![0; ioth_node_proto::REQUEST_ROOM];
    let (len, fd) = receive(conversation.as_fd(), &mut buffer);
    let (reply, payload) = Reply::parse(&buffer[..len]).expect("a reply");
    (reply, payload.to_vec(), fd)
}

/// accept(2) as the preload does it.
pub(crate) fn accept(listener: &OwnedFd) -> (OwnedFd, SocketAddr) {
    await_events(listener.as_fd(), PollFlags::POLLIN);
    let mut buffer = [0; Head::LEN];
    let (len, fd) = receive(listener.as_fd(), &mut buffer);
    let head = Head::parse(&buffer[..len]).expect("a head");
    assert_eq!(head.kind, HeadKind::Connection);
    let peer = SockAddr::from_raw(head.addr()).unwrap().as_ip().unwrap();
    (fd.expect("a descriptor"), peer)
}

fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> (usize, Option<OwnedFd>) {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(fd.as_raw_fd(), &mut slices, Some(&mut space), flags).unwrap();
    let fd = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|&fd| sys::received(fd)),
        _ => None,
    });
    (message.bytes, fd)
}

/// Waits until one of `events` holds, and gives all that does.
pub(crate) fn await_events(fd: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(fd, events)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, patience), Ok(1), "never {events:?}");
    fds[0].revents().unwrap()
}

/// What holds now of IN and OUT, and whatever else.
pub(crate) fn events(fd: &OwnedFd) -> PollFlags {
    let all = PollFlags::POLLIN | PollFlags::POLLOUT;
    let mut fds = [PollFd::new(fd.as_fd(), all)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    fds[0].revents().unwrap()
}

/// Reads one piece, waiting for it.
pub(crate) fn read(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    await_events(fd.as_fd(), PollFlags::POLLIN);
    let mut buffer = vec![0; 1 << 16];
    let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    buffer.truncate(len);
    Ok(buffer)
}

pub(crate) fn write(fd: &OwnedFd, data: &[u8]) -> Result<usize, Errno> {
    nix::sys::socket::send(fd.as_raw_fd(), data, MsgFlags::MSG_NOSIGNAL)
}

pub(crate) fn state(fd: &OwnedFd) -> State {
    State::from_priority(getsockopt(fd, sockopt::Priority).unwrap()).unwrap()
}
