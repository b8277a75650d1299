//! What an engine holds at a time, counted: who looks for a leak compares it with what there should be.

use super::Engine;
use super::sockets::Kind;

/// How much an engine holds, by kind. Told by [`Engine::census`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Sockets: those of users, those that listeners hold for them, and those that were closed and still deliver.
    pub sockets: usize,
    /// Connections that segments can reach.
    pub connections: usize,
    /// Connections whose handshake is under way at a listener.
    pub embryos: usize,
    /// Connections that wait for accept(2).
    pub ready: usize,
    /// Segments that wait for room in a listener's queue.
    pub parked: usize,
    /// Connections in TIME_WAIT, those included whose time is over and that nobody has looked at since.
    pub time_wait: usize,
    /// Ports that a bind(2) or connect(2) holds.
    pub ports: usize,
    /// Reminders of sockets, those included that mean nothing any more.
    pub timers: usize,
    /// Neighbours whose address is known or asked for.
    pub neighbours: usize,
    /// Packets that wait for a neighbour's answer.
    pub unresolved: usize,
    /// Packets of which pieces are missing.
    pub pieces: usize,
    /// Groups of which the links have to hear something.
    pub reports: usize,
    /// Destinations to which a narrower way is known.
    pub path_mtus: usize,
    /// Frames that wait for [`Engine::take_egress`], packets to the node itself included.
    pub egress: usize,
}

impl Engine {
    /// Counts what there is. Takes time in proportion to it.
    pub fn census(&self) -> Census {
        let mut census = Census {
            sockets: self.sockets.len(),
            ports: self.ports.held(),
            timers: self.timers.len(),
            neighbours: self.net.neighbours.iter().count(),
            unresolved: self.net.neighbours.queued(),
            pieces: self.net.reassembly.len(),
            reports: self.net.reports.len(),
            path_mtus: self.net.tables.path_mtu_count(),
            egress: self.net.ports.iter().flatten().map(|port| port.egress.len()).sum(),
            ..Census::default()
        };
        census.egress += self.net.looped.len() + self.net.failed.len();
        self.tcp.count(&mut census);
        for (_, sock) in &self.sockets {
            if let Kind::Stream(stream) = &sock.kind {
                stream.count(&mut census);
            }
        }
        census
    }
}
