//! The switch at work: one epoll(7), and the endpoints. The way of frames is `transit`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ioth_core::Errno;
use ioth_core::spin::{Service, Wait, look_or_sleep};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use slab::Slab;

use super::Config;
use super::commands::endpoint_id;
use super::console::Consoles;
use super::debug::Category;
use super::dir::{CONTROL, Directory, Permit, SocketFile, listener};
use super::egress::Egress;
use super::mirror::Mirror;
use super::transit::Item;
use crate::bridge::{Bridge, Form, Loss};
use crate::ether::FRAME_MAX;
use crate::{Batch, Frame, LinkError, sys};

/// Events taken at once.
const EVENTS: usize = 64;

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Stop,
    /// A client that has not said yet what it wants.
    Guest(usize),
    Control(usize),
    Data(usize),
    ConsoleListener(usize),
    Console(usize),
}

impl Token {
    pub(super) fn pack(self) -> u64 {
        let (kind, key) = match self {
            Token::Listener => (0, 0),
            Token::Stop => (1, 0),
            Token::Guest(key) => (2, key),
            Token::Control(key) => (3, key),
            Token::Data(key) => (4, key),
            Token::ConsoleListener(key) => (5, key),
            Token::Console(key) => (6, key),
        };
        (key as u64) << 8 | kind
    }

    fn unpack(word: u64) -> Option<Self> {
        let key = (word >> 8) as usize;
        Some(match word & 0xff {
            0 => Token::Listener,
            1 => Token::Stop,
            2 => Token::Guest(key),
            3 => Token::Control(key),
            4 => Token::Data(key),
            5 => Token::ConsoleListener(key),
            6 => Token::Console(key),
            _ => return None,
        })
    }
}

/// Who is at a port.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) port: u16,
    pub(super) description: String,
    pub(super) way: Way,
    pub(super) egress: Egress,
    /// There may be something to read.
    pub(super) readable: bool,
    /// It is in the list of those to be read.
    pub(super) listed: bool,
    /// Full queues that it waits for.
    pub(super) waits: usize,
    /// Where its frames are in the plan of the batch at hand.
    pub(super) planned: Option<usize>,
}

/// What an endpoint's frames go through.
#[derive(Debug)]
pub(super) enum Way {
    /// The inbox of the node's owner.
    Owner,
    Client(Plugged),
    /// The host's kernel.
    Tap(OwnedFd),
}

impl Way {
    /// What there is to read from and to write to.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Way::Owner => None,
            Way::Client(client) => Some(client.data.as_fd()),
            Way::Tap(fd) => Some(fd.as_fd()),
        }
    }
}

/// A client's sockets. The file is first: its name goes before its descriptor's number can be another's.
#[derive(Debug)]
pub(super) struct Plugged {
    pub(super) _file: SocketFile,
    pub(super) control: OwnedFd,
    pub(super) data: OwnedFd,
    /// Its user.
    pub(super) owner: u32,
}

/// A switch.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) bridge: Bridge,
    pub(super) endpoints: Slab<Endpoint>,
    /// Endpoints by port.
    pub(super) at: Vec<Vec<usize>>,
    pub(super) guests: super::door::Guests,
    pub(super) consoles: Consoles,
    pub(super) ports: super::door::Ports,
    pub(super) mirror: Option<Mirror>,
    pub(super) epoll: Epoll,
    /// How its waits fared, where it has a thread of its own.
    service: Service,
    pub(super) listener: OwnedFd,
    _listener_file: SocketFile,
    pub(super) dir: Directory,
    pub(super) born: Instant,
    /// What the owner of the node gets: it has an endpoint without sockets.
    pub(super) host: Option<Host>,
    /// What is told of a spanning tree that there is not.
    pub(super) fstp: super::fstp::Fstp,
    /// Files of commands that are being run.
    pub(super) scripts: usize,
    pub(super) ready: VecDeque<usize>,
    /// Endpoints that others wait for.
    pub(super) full: Vec<usize>,
    pub(super) frames: Vec<Frame>,
    pub(super) to: Vec<(u16, Form)>,
    pub(super) plan: Vec<(usize, Vec<Item>)>,
    pub(super) spare: Vec<Vec<Item>>,
}

/// The node's owner, at a port of its own.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) key: usize,
    pub(super) inbox: Batch,
    /// It was told to wait, and is to be told when it need not any more.
    pub(super) told: bool,
}

/// What a round of work came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Idle,
    Busy,
    Stopped,
}

impl Core {
    pub(super) fn new(config: Config) -> Result<Self, LinkError> {
        let what = format!("a switch at {}", config.path.display());
        let failed = |errno| LinkError::Os { what: what.clone(), errno };
        let dir = Directory::make(&config.path, Permit { mode: config.dirmode, group: config.group })?;
        let permit = Permit { mode: config.mode, group: config.group };
        let (listener, file) = listener(&dir.path().join(CONTROL), permit)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let mut core = Core {
            bridge: Bridge::new(config.bridge),
            endpoints: Slab::new(),
            at: Vec::new(),
            guests: super::door::Guests::new(),
            consoles: Consoles::default(),
            ports: super::door::Ports::default(),
            mirror: None,
            epoll,
            service: Service::default(),
            listener,
            _listener_file: file,
            dir,
            born: Instant::now(),
            host: None,
            fstp: super::fstp::Fstp::default(),
            scripts: 0,
            ready: VecDeque::new(),
            full: Vec::new(),
            frames: Vec::new(),
            to: Vec::new(),
            plan: Vec::new(),
            spare: Vec::new(),
            config,
        };
        core.frames.resize_with(sys::BATCH, || Frame::new(FRAME_MAX));
        core.watch(core.listener.as_fd(), Token::Listener, EpollFlags::EPOLLIN).map_err(failed)?;
        Ok(core)
    }

    /// Gives the node's owner port 0.
    pub(super) fn add_host(&mut self, description: &str) -> Result<(), Errno> {
        let port = self.create_port(0)?;
        let key = self.add_endpoint(port, description.to_owned(), Way::Owner);
        self.host = Some(Host { key, inbox: Batch::new(), told: false });
        Ok(())
    }

    /// Changes how many places the table of stations is shown with; it holds as many stations at least.
    pub(super) fn set_buckets(&mut self, buckets: usize) {
        self.config.buckets = buckets.next_power_of_two();
        self.bridge.set_capacity(self.config.bridge.stations.max(self.config.buckets));
    }

    /// Waits for events, until the next deadline at most, and does what there is to do.
    pub(super) fn round(&mut self, wait: bool) -> nix::Result<Round> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let timeout = match self.next_deadline() {
            _ if !wait || !self.ready.is_empty() => EpollTimeout::ZERO,
            None => EpollTimeout::NONE,
            // Rounded up: waking too early is waking twice.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        };
        let count = match self.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        let mut stopped = false;
        for event in &events[..count] {
            let flags = event.events();
            match Token::unpack(event.data()) {
                Some(Token::Data(key)) => self.data_event(key, flags),
                Some(Token::Control(key)) => self.control_event(key),
                Some(Token::Listener) => self.knock(),
                Some(Token::Guest(key)) => self.guest_event(key),
                Some(Token::ConsoleListener(at)) => self.console_knock(at),
                Some(Token::Console(key)) => stopped |= self.console_event(key, flags),
                Some(Token::Stop) => stopped = true,
                None => (),
            }
        }
        self.expire();
        let worked = !self.ready.is_empty();
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            self.serve(key);
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.flush();
        }
        self.tell_stations();
        self.hand_out();
        Ok(match (stopped, count > 0 || worked) {
            (true, _) => Round::Stopped,
            (false, true) => Round::Busy,
            (false, false) => Round::Idle,
        })
    }

    fn wait(&self, events: &mut [EpollEvent], timeout: EpollTimeout) -> nix::Result<usize> {
        if timeout == EpollTimeout::ZERO {
            return self.epoll.wait(events, timeout);
        }
        look_or_sleep(
            &self.service,
            self.next_deadline(),
            |found| *found != Ok(0),
            |how| {
                let timeout = match how {
                    Wait::Awake => EpollTimeout::ZERO,
                    Wait::Asleep => timeout,
                };
                self.epoll.wait(events, timeout)
            },
        )
    }

    /// Whether there is work that no event will tell of.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When something is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let full = self.full.iter().filter_map(|&key| self.endpoints.get(key)?.egress.deadline()).min();
        [full, self.guests.deadline()].into_iter().flatten().min()
    }

    /// The clock of the bridge, in seconds.
    pub(super) fn now(&self) -> u32 {
        self.born.elapsed().as_secs() as u32
    }

    pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: Token, flags: EpollFlags) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(flags, token.pack()))
    }

    /// Gives the host's kernel, by a TAP interface, a port of its own.
    pub(super) fn add_tap(&mut self, fd: OwnedFd, name: &str) -> Result<(), Errno> {
        let port = self.free_port().ok_or(Errno::ENOSPC)?;
        if !self.bridge.exists(usize::from(port)) {
            self.create_port(usize::from(port))?;
        }
        let key = self.add_endpoint(port, name.to_owned(), Way::Tap(fd));
        if let Some(mirror) = &mut self.mirror {
            mirror.name(port, name);
        }
        let watched = match self.endpoints[key].way.fd() {
            Some(fd) => self.watch(fd, Token::Data(key), data_flags()),
            None => Ok(()),
        };
        watched.inspect_err(|_| self.remove_endpoint(key))
    }

    /// Makes a port, and tells of it.
    pub(super) fn create_port(&mut self, number: usize) -> Result<u16, Errno> {
        let port = self.bridge.create(number)?;
        self.tell(Category::PortNew, format_args!("{port:02}"));
        Ok(port)
    }

    pub(super) fn add_endpoint(&mut self, port: u16, description: String, way: Way) -> usize {
        let key = self.endpoints.insert(Endpoint {
            port,
            description,
            way,
            egress: Egress::default(),
            readable: false,
            listed: false,
            waits: 0,
            planned: None,
        });
        let place = usize::from(port);
        if self.at.len() <= place {
            self.at.resize_with(place + 1, Vec::new);
        }
        self.at[place].push(key);
        self.bridge.activate(port, true);
        let id = endpoint_id(&self.endpoints[key]);
        self.tell(Category::EndpointNew, format_args!("Port {port:02} FD {id:2}"));
        self.tell_description(key);
        key
    }

    /// Forgets an endpoint. Its port stays, inactive when it was the last one.
    pub(super) fn remove_endpoint(&mut self, key: usize) {
        let Some(mut endpoint) = self.endpoints.try_remove(key) else { return };
        let (port, id) = (endpoint.port, endpoint_id(&endpoint));
        self.tell(Category::EndpointGone, format_args!("Port {port:02} FD {id:2}"));
        if let Some(there) = self.at.get_mut(usize::from(endpoint.port)) {
            there.retain(|other| *other != key);
            if there.is_empty() {
                self.bridge.activate(endpoint.port, false);
                self.tell(Category::PortGone, format_args!("{port:02}"));
            }
        }
        self.bridge.dropped(endpoint.port, Loss::Refused, endpoint.egress.len() as u64);
        self.full.retain(|other| *other != key);
        for waiter in endpoint.egress.take_waiters() {
            self.resume(waiter);
        }
        if endpoint.waits > 0 {
            for (_, other) in &mut self.endpoints {
                other.egress.waiters.retain(|waiter| *waiter != key);
            }
        }
        self.ready.retain(|other| *other != key);
    }

    fn data_event(&mut self, key: usize, flags: EpollFlags) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        // An error is taken by reading.
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            endpoint.readable = true;
            self.enlist(key);
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush(key);
        }
    }

    /// Nothing is expected on the control socket but its end.
    fn control_event(&mut self, key: usize) {
        let Some(Endpoint { way: Way::Client(socket), .. }) = self.endpoints.get(key) else { return };
        let mut ignored = [0; 256];
        match recv(socket.control.as_raw_fd(), &mut ignored, MsgFlags::MSG_DONTWAIT) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => (),
            Ok(_) | Err(_) => {
                // What it sent before it went is still for the others.
                for _ in 0..sys::BATCH {
                    if !self.read(key) {
                        break;
                    }
                }
                self.remove_endpoint(key);
            }
        }
    }

    pub(super) fn enlist(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        if endpoint.readable && endpoint.waits == 0 && !endpoint.listed {
            endpoint.listed = true;
            self.ready.push_back(key);
        }
    }

    fn serve(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        endpoint.listed = false;
        if endpoint.waits == 0 {
            let more = self.read(key);
            if let Some(endpoint) = self.endpoints.get_mut(key) {
                endpoint.readable = more;
            }
            self.enlist(key);
        }
    }

    fn expire(&mut self) {
        if self.full.is_empty() && self.guests.deadline().is_none() {
            return;
        }
        let now = Instant::now();
        for at in (0..self.full.len()).rev() {
            let key = self.full[at];
            let Some(endpoint) = self.endpoints.get_mut(key) else { continue };
            if endpoint.egress.deadline().is_some_and(|deadline| deadline <= now) {
                endpoint.egress.give_up();
                self.release(key);
            }
        }
        self.guests.expire(now);
    }
}

/// Edge-triggered: an endpoint that must wait is not asked for again and again.
pub(super) fn data_flags() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLET
}
