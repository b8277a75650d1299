//! How clients come in: the control socket, the requests, the ports that they get.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::time::{Duration, Instant};

use ioth_core::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, getpeername, getsockopt, recv, send,
    socket, sockopt,
};
use nix::unistd::{AccessFlags, access, geteuid};
use slab::Slab;

use super::core::{Core, Plugged, Token, Way, data_flags};
use super::dir::{Permit, SocketFile};
use super::request::{Address, REQUEST_MAX, Request, Wanted, answer};
use crate::datagram::widen;
use crate::sys;

/// How long a client has for its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients that have not said what they want, at most; then the oldest is sent away.
const GUESTS_MAX: usize = 64;
/// Endpoints that share a port, at most.
const SHARERS_MAX: usize = 64;
/// Clients taken in at once: frames must not wait for all of a crowd.
const CROWD: usize = 16;

/// Clients that have not said yet what they want.
#[derive(Debug)]
pub(super) struct Guests {
    list: Slab<Guest>,
    /// Closed to let one in when descriptors run out: who waits would make the listener readable for ever.
    reserve: Option<OwnedFd>,
    /// Clients sent away, and why, for people who look for a reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Guest {
    control: OwnedFd,
    deadline: Instant,
}

/// What is configured of ports, beside the bridge's part.
#[derive(Debug, Default)]
pub(super) struct Ports {
    list: BTreeMap<u16, PortAccess>,
}

impl PortAccess {
    /// Root may always; upstream's rule, too.
    fn admits(&self, peer: &Peer) -> bool {
        match (self.user, self.group) {
            (None, None) => true,
            (user, group) => {
                peer.user == 0 || user == Some(peer.user) || group.is_some_and(|group| peer.is_in(group))
            }
        }
    }
}

/// Who may have a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortAccess {
    /// Whether clients that name no port may get it.
    pub(super) allocatable: bool,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    /// The user of who came last.
    pub(super) current: Option<u32>,
}

impl Default for PortAccess {
    fn default() -> Self {
        PortAccess { allocatable: true, user: None, group: None, current: None }
    }
}

impl Ports {
    pub(super) fn of(&self, port: u16) -> PortAccess {
        self.list.get(&port).cloned().unwrap_or_default()
    }

    pub(super) fn change(&mut self, port: u16) -> &mut PortAccess {
        self.list.entry(port).or_default()
    }

    pub(super) fn forget(&mut self, port: u16) {
        self.list.remove(&port);
    }

    pub(super) fn keep_below(&mut self, limit: usize) {
        self.list.retain(|port, _| usize::from(*port) < limit);
    }
}

/// Why a client is sent away.
type Refusal = &'static str;

/// Who is at the other end of a control socket.
#[derive(Debug)]
struct Peer {
    user: u32,
    group: u32,
    /// Its further groups.
    groups: Vec<u32>,
}

impl Peer {
    fn of(control: &OwnedFd) -> Result<Self, Refusal> {
        let credentials = getsockopt(control, sockopt::PeerCredentials).map_err(|_| "no credentials")?;
        // Without the system's word it is in none.
        let groups = sys::peer_groups(control.as_fd()).unwrap_or_default();
        Ok(Peer { user: credentials.uid(), group: credentials.gid(), groups })
    }

    fn is_in(&self, group: u32) -> bool {
        self.group == group || self.groups.contains(&group)
    }
}

impl Guests {
    pub(super) fn new() -> Self {
        Guests { list: Slab::new(), reserve: spare(), refused: BTreeMap::new() }
    }

    /// When the first of them has waited for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.list.iter().map(|(_, guest)| guest.deadline).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.list.len();
        self.list.retain(|_, guest| guest.deadline > now);
        self.refuse("no request", before - self.list.len());
    }

    /// Takes in who waits at a listener. Without descriptors left it is sent away: it would keep the listener readable for ever.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let accepted = sys::accept(listener);
        if let Err(Errno::EMFILE | Errno::ENFILE) = accepted {
            self.reserve = None;
            drop(sys::accept(listener));
            self.reserve = spare();
            self.refuse("no descriptors", 1);
        }
        accepted
    }

    pub(super) fn refuse(&mut self, why: Refusal, count: usize) {
        if count > 0 {
            *self.refused.entry(why).or_default() += count as u64;
        }
    }

    /// Takes one out who waits the longest.
    fn make_room(&mut self) {
        if self.list.len() < GUESTS_MAX {
            return;
        }
        let oldest = self.list.iter().min_by_key(|(_, guest)| guest.deadline).map(|(key, _)| key);
        if let Some(key) = oldest {
            self.list.remove(key);
            self.refuse("no request", 1);
        }
    }
}

impl Core {
    /// Clients wait at the listener.
    pub(super) fn knock(&mut self) {
        for _ in 0..CROWD {
            match self.guests.accept(self.listener.as_fd()) {
                Ok(control) => self.let_in(control),
                Err(Errno::EMFILE | Errno::ENFILE | Errno::EINTR | Errno::ECONNABORTED) => (),
                Err(_) => return,
            }
        }
    }

    fn let_in(&mut self, control: OwnedFd) {
        self.guests.make_room();
        let place = self.guests.list.vacant_entry();
        let key = place.key();
        let guest = place.insert(Guest { control, deadline: Instant::now() + PATIENCE });
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Guest(key).pack());
        let watched = self.epoll.add(&guest.control, event);
        if watched.is_err() {
            self.guests.list.remove(key);
            self.guests.refuse("no memory", 1);
        }
    }

    /// A client says what it wants.
    pub(super) fn guest_event(&mut self, key: usize) {
        let Some(guest) = self.guests.list.get(key) else { return };
        let mut bytes = [0; REQUEST_MAX];
        let read = recv(guest.control.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
        if matches!(read, Err(Errno::EAGAIN | Errno::EINTR)) {
            return;
        }
        let guest = self.guests.list.remove(key);
        let outcome = match read {
            Ok(len @ 1..) => match Request::parse(&bytes[..len]) {
                Ok(request) => self.plug(guest.control, &request),
                Err(_) => Err("bad request"),
            },
            _ => Err("no request"),
        };
        // Its control socket is closed by now: clients of upstream would wait for ever for another answer.
        if let Err(why) = outcome {
            self.guests.refuse(why, 1);
        }
    }

    /// Gives a client its port.
    fn plug(&mut self, control: OwnedFd, request: &Request) -> Result<(), Refusal> {
        let peer = Peer::of(&control)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let data =
            socket(AddressFamily::Unix, SockType::Datagram, flags, None).map_err(|_| "no descriptors")?;
        call(&data, &request.address, &peer)?;
        let port = self.choose(request.port, &peer)?;
        let name = format!("{port:03}.{}", data.as_raw_fd());
        let file =
            SocketFile::bind(&data, self.dir.path().join(name)).map_err(|_| "no room for its socket")?;
        self.open_to(file.path(), &request.address, &peer);
        widen(&data);
        let reply = answer(file.path());
        let sent = send(control.as_raw_fd(), &reply, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        if sent != Ok(reply.len()) {
            return Err("it takes no answer");
        }
        let socket = Plugged { _file: file, control, data, owner: peer.user };
        let key = self.add_endpoint(port, request.description.clone(), Way::Client(socket));
        // As upstream, which looks at files, shows it.
        self.ports.change(port).current = matches!(request.address, Address::Path(_)).then_some(peer.user);
        let description = &self.endpoints[key].description;
        if let Some(mirror) = &mut self.mirror {
            mirror.name(port, description);
        }
        let Way::Client(socket) = &self.endpoints[key].way else { return Ok(()) };
        // The control socket is watched already, as a guest's.
        let watched = self
            .epoll
            .modify(&socket.control, &mut EpollEvent::new(EpollFlags::EPOLLIN, Token::Control(key).pack()))
            .and_then(|()| self.watch(socket.data.as_fd(), Token::Data(key), data_flags()));
        if watched.is_err() {
            self.remove_endpoint(key);
            return Err("no memory");
        }
        Ok(())
    }

    /// A port for a client: made when it is not there.
    fn choose(&mut self, wanted: Wanted, peer: &Peer) -> Result<u16, Refusal> {
        let number = match wanted {
            // Free ports of others are none for it.
            Wanted::Any => self
                .free_ports()
                .find(|&port| self.ports.of(port).admits(peer))
                .map(usize::from)
                .ok_or("no free port")?,
            Wanted::Number(number) => usize::try_from(number).map_err(|_| "no such port")?,
        };
        if number >= self.bridge.limit() {
            return Err("no such port");
        }
        // Below the limit, which has 16 bits.
        let port = number as u16;
        let there = self.at.get(number).map_or(&[][..], Vec::as_slice);
        let is_owner = |key: &usize| matches!(self.endpoints[*key].way, Way::Owner);
        if there.len() >= SHARERS_MAX || there.iter().any(is_owner) {
            return Err("the port is taken");
        }
        if !self.ports.of(port).admits(peer) {
            return Err("not admitted to the port");
        }
        if !self.bridge.exists(number) {
            self.create_port(number).map_err(|_| "no such port")?;
        }
        Ok(port)
    }

    /// The lowest number that a client may have who names none: 0 is for those who do.
    pub(super) fn free_port(&self) -> Option<u16> {
        self.free_ports().next()
    }

    fn free_ports(&self) -> impl Iterator<Item = u16> {
        // Ports have 16 bits.
        (1..self.bridge.limit())
            .filter(|&number| self.is_free(number))
            .map_while(|number| number.try_into().ok())
    }

    fn is_free(&self, number: usize) -> bool {
        if self.at.get(number).is_some_and(|there| !there.is_empty()) {
            return false;
        }
        // Ports have 16 bits.
        !self.bridge.exists(number) || self.ports.of(number as u16).allocatable
    }

    /// Lets the client, and nobody whom it would not let, write to the port's socket. (To whom it is connected, the
    /// kernel sees to itself.)
    fn open_to(&self, path: &Path, address: &Address, peer: &Peer) {
        let same = match address {
            Address::Path(theirs) => theirs.metadata().ok(),
            Address::Abstract(_) => None,
        };
        let owned = match &same {
            Some(meta) => lchown(path, Some(meta.uid()), Some(meta.gid())).is_ok(),
            None => geteuid().is_root() && lchown(path, Some(peer.user), Some(peer.group)).is_ok(),
        };
        let permit = match same {
            Some(meta) if owned => Permit { mode: meta.mode() & 0o777, group: None },
            _ => Permit { mode: self.config.mode, group: self.config.group },
        };
        // Where that fails the client cannot connect, and goes.
        let _ = permit.apply(path);
    }
}

/// Connects to a client's data socket.
///
/// Clients name a path for us to write to: it has to be a socket of their own, under its own name.
fn call(data: &OwnedFd, address: &Address, peer: &Peer) -> Result<(), Refusal> {
    if let Address::Path(path) = address {
        access(path, AccessFlags::R_OK | AccessFlags::W_OK)
            .map_err(|_| "its socket may not be written to")?;
        let meta = path.symlink_metadata().map_err(|_| "its socket may not be written to")?;
        if meta.uid() != peer.user && peer.user != 0 {
            return Err("its socket is another user's");
        }
    }
    let there = address.to_unix().map_err(|_| "bad request")?;
    connect(data.as_raw_fd(), &there).map_err(|_| "its socket cannot be reached")?;
    // The path may lead elsewhere by now.
    if let Address::Path(path) = address
        && getpeername::<UnixAddr>(data.as_raw_fd()).ok().as_ref().and_then(UnixAddr::path) != Some(path)
    {
        return Err("its socket has another name");
    }
    Ok(())
}

fn spare() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::socketpair;
    use nix::unistd::{getegid, getgroups};

    use super::*;

    #[test]
    fn who_may_have_a_port() {
        let peer = |user, group, groups: &[u32]| Peer { user, group, groups: groups.to_vec() };
        let access = |user, group| PortAccess { user, group, ..PortAccess::default() };
        let member = peer(1000, 1000, &[4, 20]);
        for (access, admitted) in [
            (access(None, None), true),
            (access(Some(1000), None), true),
            (access(Some(1001), None), false),
            (access(None, Some(1000)), true),
            (access(None, Some(20)), true),
            (access(None, Some(21)), false),
            (access(Some(1001), Some(4)), true),
            (access(Some(1001), Some(5)), false),
        ] {
            assert_eq!(access.admits(&member), admitted, "{access:?}");
            assert!(access.admits(&peer(0, 0, &[])), "{access:?}");
        }
    }

    #[test]
    fn groups_of_a_caller() {
        let (near, _far) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let peer = Peer::of(&near).unwrap();
        let own: Vec<u32> = getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        assert_eq!((peer.user, peer.group), (geteuid().as_raw(), getegid().as_raw()));
        assert_eq!(peer.groups, own);
    }
}
