//! connect(2): from a fresh socket to a SYN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ioth_core::{Errno, Result};

use super::Role;
use super::conn::{Conn, Setup, Stage, Tuple};
use crate::engine::ports::Space;
use crate::engine::sockets::Kind;
use crate::engine::{Engine, SocketId};

/// Ports that are looked at for one without a connection in TIME_WAIT, before one with is taken: when a program opens
/// thousands of connections a second to one server, all of them have one.
const FRESH_TRIES: usize = 32;

impl Engine {
    /// Begins a connection; `EINPROGRESS` is success so far.
    pub(in crate::engine) fn tcp_connect(&mut self, id: SocketId, remote: SocketAddr) -> Result<()> {
        let stream = self.stream_mut(id)?;
        let stage = match &stream.role {
            Role::Idle => None,
            Role::Listener(_) => return Err(Errno::EISCONN),
            Role::Connection(conn) => Some(conn.stage),
        };
        match stage {
            None => {}
            Some(Stage::Opening) => return Err(Errno::EALREADY),
            // connect(2) tells once what came of it.
            Some(_) if stream.connecting => return self.connect_result(id),
            Some(_) => return Err(Errno::EISCONN),
        }
        if remote.ip().is_multicast() || remote.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Errno::ENETUNREACH);
        }
        // Linux: the unspecified address means this host.
        let remote_ip = match remote.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        self.connect_scope(id, remote)?;
        let scope = self.sockets[id.0].options.device;
        let remote = SocketAddr::new(remote_ip, remote.port());
        if remote.port() == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let bound = self.stream_mut(id)?.bound;
        let own_ip = self.stream_mut(id)?.own_ip;
        if own_ip.is_some_and(|ip| ip.is_ipv4() && remote_ip.is_ipv6()) {
            // Linux's ip6_dst_lookup_tail() compares them when it has a route.
            self.net.tables.route(remote_ip, scope, None).map_err(|error| error.to_errno())?;
            return Err(Errno::EAFNOSUPPORT);
        }
        let for_many = own_ip.is_some_and(|ip| self.is_for_many(ip));
        let source = own_ip.filter(|ip| !ip.is_unspecified() && !for_many);
        if source.is_some_and(|ip| ip.is_ipv6() && remote_ip.is_ipv4()) {
            return Err(Errno::ENETUNREACH);
        }
        let ip_options = self.sockets[id.0].ip_options.clone().filter(|_| remote_ip.is_ipv4());
        let next = ip_options.as_ref().map_or(remote_ip, |options| options.next(remote_ip));
        let path = self.net.tables.route(next, scope, source).map_err(|error| error.to_errno())?;
        let local_ip = source.unwrap_or(path.source);
        let (local, chosen) = match bound {
            Some(bound) => (SocketAddr::new(local_ip, bound.port()), None),
            None => {
                let port = self.choose_port(local_ip, remote, scope.unwrap_or(0))?;
                (SocketAddr::new(local_ip, port), Some(port))
            }
        };
        let tuple = Tuple::new(local, remote, scope.unwrap_or(0));
        if self.tcp.connections.contains_key(&tuple) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let sequence = self.initial_sequence(&tuple);
        let options = self.sockets[id.0].options;
        let ip_options = ip_options.as_ref();
        let setup = Setup { tuple, path, sequence, options: &options, ip_options, pool: &self.tcp.pool };
        let Some(mut conn) = Conn::connect(&self.net, &mut self.tcp.contexts, setup) else {
            if let Some(port) = chosen {
                self.ports.release(port);
            }
            return Err(Errno::ENOBUFS);
        };
        conn.scope = scope;
        self.tcp.connections.insert(tuple, id);
        let sock = &mut self.sockets[id.0];
        if let Kind::Stream(stream) = &mut sock.kind {
            // Linux's inet_bhash2_update_saddr(): the address that was chosen takes a group's place.
            if for_many {
                stream.own_ip = Some(local_ip);
                if let Some(bound) = &mut stream.bound {
                    bound.set_ip(local_ip);
                    self.ports.update(Space::Tcp, bound.port(), id, |binding| binding.addr = local_ip);
                }
            }
            stream.chosen = chosen;
            stream.connecting = true;
            stream.name = None;
            stream.role = Role::Connection(Box::new(conn));
            stream.apply(&options);
        }
        self.mark_dirty(id);
        Err(Errno::EINPROGRESS)
    }

    /// A local port whose 4-tuple is free; if there is none, one whose connection is over but for TIME_WAIT.
    fn choose_port(&mut self, local: IpAddr, remote: SocketAddr, ifindex: u32) -> Result<u16> {
        let offset = self.net.random.port_offset(local, remote);
        let tuple = |port| Tuple::new(SocketAddr::new(local, port), remote, ifindex);
        let (connections, time_wait, now) = (&self.tcp.connections, &self.tcp.time_wait, self.net.now);
        let unused = |port| !connections.contains_key(&tuple(port));
        self.ports
            .choose(offset, FRESH_TRIES, |port| unused(port) && time_wait.get(now, &tuple(port)).is_none())
            // RFC 6191: the new sequence numbers are above the old ones, see initial_sequence().
            .or_else(|| self.ports.choose(offset, usize::MAX, unused))
            .ok_or(Errno::EADDRNOTAVAIL)
    }

    /// RFC 6528, and beyond what the tuple's last connection used (RFC 1122 §4.2.2.13).
    pub(super) fn initial_sequence(&mut self, tuple: &Tuple) -> u32 {
        let sequence = self.net.random.initial_sequence(self.net.now, tuple.local(), tuple.remote());
        match self.tcp.time_wait.remove(tuple, &mut self.ports) {
            Some(remains) if sequence.wrapping_sub(remains.send_next) as i32 <= 0 => {
                let gap = 64_000 + self.net.random.below(64_000) as u32;
                remains.send_next.wrapping_add(gap)
            }
            _ => sequence,
        }
    }
}
