//! The node: its sessions, and how long it lives.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ioth::core::reactor::{Reactor, Registration, Source};
use ioth::{Errno, Events, SockAddr, Socket, Stack};
use ioth_node_proto::EndName;
use parking_lot::{Condvar, Mutex};

use crate::control::Control;
use crate::lease::Leases;
use crate::lookup::Desk;
use crate::names::{Files, Names};
use crate::session::{Lasting, Session};
use crate::{ServeError, Setup};

/// Bytes that move at once between a pair and a socket; larger than the largest datagram with its head.
const SCRATCH: usize = 128 << 10;
/// How many sockets that are over, but whose descriptors may be open still, are remembered.
const REMAINS: usize = 4096;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's buffer of [`SCRATCH`] bytes; not to be nested.
pub(crate) fn with_scratch<T>(job: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(SCRATCH, 0);
        job(buffer)
    })
}

/// One node and the programs on it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) stack: Stack,
    pub(crate) desk: Arc<Desk>,
    pub(crate) token: [u8; 16],
    /// In the names of its ends.
    id: u64,
    next: AtomicU64,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
    remains: Mutex<VecDeque<(u64, Remains)>>,
    /// Sessions with something to do.
    queue: Mutex<Vec<Arc<Session>>>,
    /// None where the system has no means for them.
    leases: Option<Leases>,
    life: Mutex<Life>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Life {
    /// Until the last program has gone.
    lease: Option<(OwnedFd, Registration)>,
    /// Tells of the other leases' ends.
    leases: Option<Registration>,
    control: Option<Arc<Control>>,
    over: bool,
}

/// What can still be asked of a socket that is over while a program has its descriptor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    pub(crate) local: Option<SockAddr>,
    pub(crate) error: Option<Errno>,
    /// Of a connection.
    pub(crate) options: Option<Lasting>,
}

impl Node {
    pub(crate) fn begin(setup: Setup) -> Result<Arc<Node>, ServeError> {
        let os = |what| move |errno| ServeError::Os { what, errno };
        let io = |what| move |error: std::io::Error| ServeError::Os { what, errno: errno(error) };
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|_| os("random numbers")(Errno::EIO))?;
        let node = Arc::new(Node {
            desk: Desk::new(Names::new(setup.stack.clone(), &setup.resolver, &Files::default())),
            stack: setup.stack,
            token: setup.place.token,
            id: u64::from_ne_bytes(id),
            next: AtomicU64::new(1),
            sessions: Mutex::default(),
            remains: Mutex::default(),
            queue: Mutex::default(),
            leases: Leases::new().ok(),
            life: Mutex::default(),
            over: Condvar::new(),
        });
        let reactor = Reactor::try_global().map_err(io("reactor"))?;
        // All of a node's work is the reactor's.
        reactor.look_before_sleep();
        let lease = Arc::new(Lease(Arc::downgrade(&node)));
        let registration = reactor
            .register(setup.lease.as_fd(), Events::empty(), lease)
            .map_err(io("watch the programs"))?;
        node.life.lock().lease = Some((setup.lease, registration));
        if let Some(leases) = &node.leases {
            let ends = Arc::new(Ends(Arc::downgrade(&node)));
            let registration =
                reactor.register(leases.deletions(), Events::IN, ends).map_err(io("watch the leases"))?;
            node.life.lock().leases = Some(registration);
        }
        let control = Control::begin(&node, setup.control).map_err(io("watch the control socket"))?;
        node.life.lock().control = Some(control);
        Ok(node)
    }

    /// Waits for the end.
    pub(crate) fn wait(&self) {
        let mut life = self.life.lock();
        while !life.over {
            self.over.wait(&mut life);
        }
        life.control = None;
        life.leases = None;
    }

    /// A lease for a program that begins: see [`Leases`].
    pub(crate) fn grant(&self) -> Result<OwnedFd, Errno> {
        self.leases.as_ref().ok_or(Errno::ENOSYS)?.grant()
    }

    /// The name for the end of a new socket.
    pub(crate) fn name(&self, domain: i32, kind: i32, protocol: i32) -> EndName {
        EndName {
            node: self.id,
            socket: self.next.fetch_add(1, Ordering::Relaxed),
            domain: domain as u16,
            kind: kind as u16,
            protocol: protocol as u16,
        }
    }

    pub(crate) fn enter(&self, session: &Arc<Session>) {
        self.sessions.lock().insert(session.name.socket, session.clone());
    }

    pub(crate) fn find(&self, name: &EndName) -> Option<Arc<Session>> {
        match name.node == self.id {
            true => self.sessions.lock().get(&name.socket).cloned(),
            false => None,
        }
    }

    /// All that are not over.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// What is left of a socket that is over; its error is given once.
    pub(crate) fn remains(&self, name: &EndName) -> Option<Remains> {
        let mut remains = self.remains.lock();
        let (_, found) = remains.iter_mut().rev().find(|(socket, _)| *socket == name.socket)?;
        let given = found.clone();
        found.error = None;
        Some(given)
    }

    /// A session is over.
    pub(crate) fn leave(&self, session: &Session, remains: Remains) {
        if self.sessions.lock().remove(&session.name.socket).is_some() {
            let mut all = self.remains.lock();
            if all.len() == REMAINS {
                all.pop_front();
            }
            all.push_back((session.name.socket, remains));
        }
        self.check_over();
    }

    fn check_over(&self) {
        let mut life = self.life.lock();
        let programs = self.leases.as_ref().map_or(0, Leases::live);
        if life.lease.is_none() && programs == 0 && self.sessions.lock().is_empty() {
            life.over = true;
            self.over.notify_all();
        }
    }

    /// Puts a session's turn into the queue, and sees to it that it comes.
    pub(crate) fn schedule(self: &Arc<Self>, session: Arc<Session>) {
        let mut queue = self.queue.lock();
        queue.push(session);
        if queue.len() > 1 {
            return;
        }
        drop(queue);
        let node = self.clone();
        Reactor::global().defer(Box::new(move || node.take_turns()));
    }

    fn take_turns(&self) {
        let turns = std::mem::take(&mut *self.queue.lock());
        for session in turns {
            session.scheduled_turn();
        }
    }

    /// Makes a socket of the stack that never waits.
    pub(crate) fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<Arc<dyn Socket>, Errno> {
        let socket = self.stack.socket(ioth::Domain(domain), ioth::SocketType(kind), protocol)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Hears when the last program has gone.
#[derive(Debug)]
struct Lease(Weak<Node>);

impl Source for Lease {
    fn ready(&self, _: Events) {
        if let Some(node) = self.0.upgrade() {
            let lease = node.life.lock().lease.take();
            drop(lease);
            node.check_over();
        }
    }
}

/// Hears when a program has gone.
#[derive(Debug)]
struct Ends(Weak<Node>);

impl Source for Ends {
    fn ready(&self, _: Events) {
        if let Some(node) = self.0.upgrade() {
            if let Some(leases) = &node.leases {
                leases.hear();
            }
            node.check_over();
        }
    }
}

pub(crate) fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
