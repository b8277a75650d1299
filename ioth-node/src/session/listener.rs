//! Listeners: connections go to the program one by one, behind each other in the pair.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use ioth::{Errno, Events, SockAddr};
use ioth_node_proto::{Head, HeadKind};

use super::{Session, Turn};
use crate::node::Node;
use crate::pair;

/// A listener's part of the work.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// A connection that did not fit.
    kept: Option<(OwnedFd, SockAddr)>,
    /// The last connections: what the program has not accepted is among them.
    latest: VecDeque<Weak<Session>>,
}

/// More connections than a listener's pair has room for, with the one that did not fit.
const LATEST: usize = 8;

impl Listener {
    /// Hands over one connection.
    pub(super) fn turn(&mut self, node: &Arc<Node>, of: &Session, end: BorrowedFd<'_>) -> Turn {
        let (user, peer) = match self.kept.take() {
            Some(kept) => kept,
            // Only when there is room: the backlog is the stack's, and stays there.
            None if !pair::events(end, Events::OUT).contains(Events::OUT) => {
                return Turn::Wait { end: Events::OUT, socket: None };
            }
            None => match accept(node, of) {
                Ok((user, peer, session)) => {
                    if self.latest.len() == LATEST {
                        self.latest.pop_front();
                    }
                    self.latest.push_back(session);
                    (user, peer)
                }
                Err(Errno::EAGAIN) => return Turn::Wait { end: Events::empty(), socket: Some(Events::IN) },
                // That connection is lost; the next may be better.
                Err(Errno::ECONNABORTED) => return Turn::Again,
                // Shut down, or out of descriptors: the next request or close of a connection gives another turn.
                Err(_) => return Turn::Wait { end: Events::empty(), socket: None },
            },
        };
        let head = Head::new(HeadKind::Connection, &peer.to_raw());
        match pair::put_with(end, &[&head.emit()], Some(user.as_fd())) {
            Ok(_) => Turn::Again,
            Err(Errno::EAGAIN) => {
                self.kept = Some((user, peer));
                Turn::Wait { end: Events::OUT, socket: None }
            }
            // The program has gone: the hang-up comes, and finds one that nobody accepted.
            Err(_) => {
                self.kept = Some((user, peer));
                Turn::Wait { end: Events::empty(), socket: None }
            }
        }
    }

    /// The program has closed its last descriptor. Connections that nobody accepted are closed by that, and shall be reset. Which
    /// ones these are, is not known: only that there are some, and that of them no byte has gone either way.
    pub(super) fn end(&mut self, end: BorrowedFd<'_>) {
        if pair::is_unread(end) || self.kept.is_some() {
            for session in self.latest.iter().filter_map(Weak::upgrade) {
                session.was_not_accepted();
            }
        }
    }
}

type Accepted = (OwnedFd, SockAddr, Weak<Session>);

fn accept(node: &Arc<Node>, of: &Session) -> Result<Accepted, Errno> {
    let (accepted, peer) = of.socket.accept()?;
    accepted.set_nonblocking(true)?;
    let name = of.name;
    let name = node.name(name.domain.into(), name.kind.into(), name.protocol.into());
    let (session, user) = Session::begin_connected(node, accepted, name, of)?;
    Ok((user, peer, Arc::downgrade(&session)))
}
