//! Sockets that carry messages: UDP, raw, packet, ICMP and netlink.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use ioth::{Errno, Events, MsgFlags, RecvMsg, SendMsg, SockAddr, Socket};
use ioth_node_proto::{Head, HeadKind, State};

use super::{Cause, Side, Turn};
use crate::node::with_scratch;
use crate::pair;

/// Room for ancillary data of a message, in bytes.
const CONTROL_ROOM: usize = 1024;

/// What lies in the pair, and how.
#[derive(Debug)]
pub(super) struct Messages {
    state: State,
    /// With ancillary data, also when connected.
    ancillary: bool,
    /// A message that did not fit.
    down: Option<Vec<u8>>,
    /// A message that the stack did not take yet.
    up: Option<(Option<SockAddr>, Vec<u8>)>,
    /// What the stack's queue of errors had, with heads. They would be told of for ever there.
    errors: VecDeque<Vec<u8>>,
    /// What each direction, up and down, found nothing at, or no room.
    waits: (Option<Side>, Option<Side>),
}

impl Default for Messages {
    fn default() -> Self {
        Messages {
            state: State::Fresh,
            ancillary: false,
            down: None,
            up: None,
            errors: VecDeque::new(),
            waits: (None, None),
        }
    }
}

impl Messages {
    /// Moves a message each way.
    pub(super) fn turn(
        &mut self,
        socket: &dyn Socket,
        end: BorrowedFd<'_>,
        hung: bool,
        cause: Cause,
        error: &mut Option<Errno>,
    ) -> Turn {
        if hung || cause.concerns(self.waits.0) {
            self.waits.0 = match self.up(socket, end, error) {
                Step::Moved => None,
                Step::EndWaits if hung => return Turn::Over { reset: false },
                Step::EndWaits => Some(Side::End),
                Step::SocketWaits => Some(Side::Socket),
                Step::Over => return Turn::Over { reset: false },
            };
        }
        // With ERR, the socket would be ready again and again, and nothing could go down.
        if cause.socket && self.waits.1 == Some(Side::End) {
            self.keep_errors(socket);
        }
        if hung {
            self.waits.1 = Some(Side::End);
        } else if cause.concerns(self.waits.1) {
            self.waits.1 = match self.down(socket, end, error) {
                Step::Moved => None,
                Step::EndWaits => Some(Side::End),
                Step::SocketWaits => Some(Side::Socket),
                Step::Over => Some(Side::Neither),
            };
        }
        let (Some(up), Some(down)) = self.waits else { return Turn::Again };
        let mut wait = (Events::empty(), Events::empty());
        match up {
            Side::End => wait.0 |= Events::IN,
            Side::Socket => wait.1 |= Events::OUT,
            Side::Neither => {}
        }
        match down {
            Side::End => wait.0 |= Events::OUT,
            Side::Socket => wait.1 |= Events::IN,
            Side::Neither => {}
        }
        Turn::Wait { end: wait.0, socket: (!wait.1.is_empty()).then_some(wait.1) }
    }

    fn up(&mut self, socket: &dyn Socket, end: BorrowedFd<'_>, error: &mut Option<Errno>) -> Step {
        let sent = match &self.up {
            Some((addr, data)) => send(socket, addr.as_ref(), data),
            None => {
                let read = with_scratch(|buffer| {
                    let len = match pair::receive(end, buffer) {
                        // An empty message, or the end of them.
                        Ok(0) if pair::events(end, Events::RDHUP).contains(Events::RDHUP) => {
                            return Err(Step::Over);
                        }
                        Ok(len) => len,
                        Err(Errno::EAGAIN) => return Err(Step::EndWaits),
                        Err(_) => return Err(Step::Over),
                    };
                    let message = &buffer[..len];
                    let (addr, data) = match self.state {
                        State::Connected => (None, message),
                        // What was written without a head, by write(2), has no destination.
                        _ => match addressed(message) {
                            Some((addr, data)) => (addr, data),
                            None => return Ok(Err(Errno::EDESTADDRREQ)),
                        },
                    };
                    let sent = send(socket, addr.as_ref(), data);
                    if sent == Err(Errno::EAGAIN) {
                        self.up = Some((addr, data.to_vec()));
                    }
                    Ok(sent)
                });
                match read {
                    Ok(sent) => sent,
                    Err(step) => return step,
                }
            }
        };
        match sent {
            Ok(()) => self.up = None,
            Err(Errno::EAGAIN) => return Step::SocketWaits,
            // The program has gone on; it hears of it as of an error that the network reports.
            Err(why) => {
                self.up = None;
                self.tell(why, end, error);
            }
        }
        Step::Moved
    }

    fn down(&mut self, socket: &dyn Socket, end: BorrowedFd<'_>, error: &mut Option<Errno>) -> Step {
        if let Some(message) = &self.down {
            return match pair::put(end, &[message]) {
                Err(Errno::EAGAIN) => Step::EndWaits,
                _ => {
                    self.down = None;
                    Step::Moved
                }
            };
        }
        let mut control = [0; CONTROL_ROOM];
        let received = with_scratch(|buffer| {
            let mut slices = [IoSliceMut::new(buffer)];
            let mut message = RecvMsg::new(&mut slices);
            if self.ancillary {
                message.control = &mut control;
            }
            let len = socket.recv(&mut message, MsgFlags::DONTWAIT)?;
            let addr = message.addr.as_ref().map(SockAddr::to_raw);
            let (control_len, flags) = (message.control_len, message.flags);
            let mut head = Head::new(HeadKind::Message, addr.as_deref().unwrap_or_default());
            head.flags = flags.bits() as u32;
            head.control_len = control_len as u32;
            let head = head.emit();
            let (data, control) = (&buffer[..len], &control[..control_len]);
            let pieces: &[&[u8]] = match self.state {
                State::Connected => &[data],
                _ => &[&head, control, data],
            };
            match pair::put(end, pieces) {
                Err(Errno::EAGAIN) => {
                    self.down = Some(pieces.concat());
                    Ok(Step::EndWaits)
                }
                _ => Ok(Step::Moved),
            }
        });
        match received {
            Ok(step) => step,
            Err(Errno::EAGAIN) if self.keep_errors(socket) => Step::Moved,
            Err(Errno::EAGAIN) => Step::SocketWaits,
            // Shut down for reading: told already.
            Err(Errno::ENOTCONN | Errno::EBADF | Errno::ENODEV) => Step::Over,
            Err(why) => {
                self.tell(why, end, error);
                Step::Moved
            }
        }
    }

    /// Takes over what the stack's queue of errors has (IP_RECVERR). False when there is nothing.
    fn keep_errors(&mut self, socket: &dyn Socket) -> bool {
        let mut any = false;
        while socket.events().contains(Events::ERR)
            && let Ok(message) = queued_error(socket)
        {
            any = true;
            if self.errors.len() < MOST_ERRORS {
                self.errors.push_back(message);
            }
        }
        any
    }

    /// The next of the errors that the program wants to read for itself.
    pub(super) fn kept_error(&mut self, socket: &dyn Socket) -> Result<Vec<u8>, Errno> {
        match self.errors.pop_front() {
            Some(message) => Ok(message),
            None => queued_error(socket),
        }
    }

    /// Tells the program of a pending error.
    fn tell(&mut self, why: Errno, end: BorrowedFd<'_>, error: &mut Option<Errno>) {
        let message: &[u8] = match self.state {
            // An empty message makes the program ask for the error.
            State::Connected => {
                *error = Some(why);
                &[]
            }
            _ => &Head::new(HeadKind::Error(why as i32), &[]).emit(),
        };
        // Without room there are messages to read first, and the error is lost as an ICMP message may be.
        let _ = pair::put(end, &[message]);
    }

    /// The socket has a peer now, or none any more: what waits in the pair is put into its new form.
    pub(super) fn connected(&mut self, connected: bool, end: BorrowedFd<'_>, user: BorrowedFd<'_>) {
        let state = match (connected, self.ancillary) {
            (_, true) => State::Ancillary,
            (true, false) => State::Connected,
            (false, false) => State::Fresh,
        };
        self.change(state, end, user);
    }

    /// Messages may bring ancillary data from now on.
    pub(super) fn with_ancillary_data(&mut self, end: BorrowedFd<'_>, user: BorrowedFd<'_>) {
        self.ancillary = true;
        self.change(State::Ancillary, end, user);
    }

    fn change(&mut self, state: State, end: BorrowedFd<'_>, user: BorrowedFd<'_>) {
        let bare = |state| state == State::Connected;
        if bare(state) != bare(self.state) {
            let mut waiting = Vec::new();
            with_scratch(|buffer| {
                while let Ok(len) = pair::receive(user, buffer) {
                    // An empty message is one only where messages are bare; else it is the end.
                    if len == 0 && !bare(self.state) {
                        break;
                    }
                    waiting.push(reform(&buffer[..len], bare(state)));
                    if waiting.len() == MOST_WAITING {
                        break;
                    }
                }
            });
            waiting.extend(self.down.take().map(|message| reform(&message, bare(state))));
            let _ = pair::set_state(user, state);
            for message in waiting.into_iter().flatten() {
                let _ = pair::put(end, &[&message]);
            }
        }
        let _ = pair::set_state(user, state);
        self.state = state;
    }
}

/// Errors that are kept until the program asks for them; more are lost, as where a socket has no room for them.
const MOST_ERRORS: usize = 64;
/// More messages than a pair holds.
const MOST_WAITING: usize = 4096;

#[derive(Clone, Copy)]
enum Step {
    Moved,
    EndWaits,
    SocketWaits,
    Over,
}

/// A message with its head or without it; `None` for what has no such form.
fn reform(message: &[u8], bare: bool) -> Option<Vec<u8>> {
    if !bare {
        return Some([&Head::new(HeadKind::Message, &[]).emit()[..], message].concat());
    }
    let head = Head::parse(message).filter(|head| head.kind == HeadKind::Message)?;
    message.get(Head::LEN + head.control_len as usize..).map(<[u8]>::to_vec)
}

/// The destination and the data of a program's message.
fn addressed(message: &[u8]) -> Option<(Option<SockAddr>, &[u8])> {
    let head = Head::parse(message).filter(|head| head.kind == HeadKind::Message && head.control_len == 0)?;
    let addr = match head.addr() {
        [] => None,
        addr => Some(SockAddr::from_raw(addr).ok()?),
    };
    Some((addr, &message[Head::LEN..]))
}

fn send(socket: &dyn Socket, addr: Option<&SockAddr>, data: &[u8]) -> Result<(), Errno> {
    let slices = [IoSlice::new(data)];
    let message = SendMsg { addr, ..SendMsg::new(&slices) };
    socket.send(&message, MsgFlags::DONTWAIT | MsgFlags::NOSIGNAL).map(|_| ())
}

/// The next message of the stack's queue of errors, behind a head.
fn queued_error(socket: &dyn Socket) -> Result<Vec<u8>, Errno> {
    // RFC 4443 §2.4(c): no ICMP message quotes more than fits into IPv6's least MTU.
    let (mut data, mut control) = ([0; 1280], [0; CONTROL_ROOM]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg::new(&mut slices);
    message.control = &mut control;
    let len = socket.recv(&mut message, MsgFlags::ERRQUEUE | MsgFlags::DONTWAIT)?;
    let addr = message.addr.as_ref().map(SockAddr::to_raw);
    let mut head = Head::new(HeadKind::Message, addr.as_deref().unwrap_or_default());
    head.flags = message.flags.bits() as u32;
    head.control_len = message.control_len as u32;
    let control_len = message.control_len;
    Ok([&head.emit()[..], &control[..control_len], &data[..len]].concat())
}

/// Whether an option makes messages come with ancillary data (cmsg(3)).
pub(super) fn brings_ancillary_data(level: i32, name: i32) -> bool {
    const SO_TIMESTAMP_NEW: i32 = 63;
    const SO_TIMESTAMPNS_NEW: i32 = 64;
    match level {
        libc::SOL_SOCKET => [
            libc::SO_TIMESTAMP,
            libc::SO_TIMESTAMPNS,
            libc::SO_TIMESTAMPING,
            libc::SO_RXQ_OVFL,
            SO_TIMESTAMP_NEW,
            SO_TIMESTAMPNS_NEW,
        ]
        .contains(&name),
        libc::IPPROTO_IP => [
            libc::IP_PKTINFO,
            libc::IP_RECVTTL,
            libc::IP_RECVTOS,
            libc::IP_RECVOPTS,
            libc::IP_RETOPTS,
            libc::IP_RECVORIGDSTADDR,
        ]
        .contains(&name),
        libc::IPPROTO_IPV6 => [
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_2292PKTINFO,
            libc::IPV6_RECVHOPLIMIT,
            libc::IPV6_2292HOPLIMIT,
            libc::IPV6_RECVTCLASS,
            libc::IPV6_RECVORIGDSTADDR,
            libc::IPV6_RECVHOPOPTS,
            libc::IPV6_RECVDSTOPTS,
            libc::IPV6_RECVRTHDR,
        ]
        .contains(&name),
        libc::SOL_PACKET => name == libc::PACKET_AUXDATA,
        libc::SOL_NETLINK => name == libc::NETLINK_PKTINFO,
        _ => false,
    }
}
