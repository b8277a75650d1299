//! The connections that no socket of a user stands for, for whoever shows them: nothing is changed here.

use ioth_core::{Domain, Unheld};

use super::conn::{Conn, Stage};
use super::info;
use crate::engine::Engine;
use crate::engine::sockets::{Kind, Sock};

impl Engine {
    /// Handshakes at listeners, connections that wait for accept(2), those that were closed and still deliver, and the
    /// latest of those in TIME_WAIT: at most `limit`. Takes time in proportion to the sockets that there are.
    pub fn unheld(&self, limit: usize) -> Vec<Unheld> {
        let alive = self.sockets.iter().filter_map(|(_, sock)| {
            let Kind::Stream(stream) = &sock.kind else { return None };
            let conn = stream.conn()?;
            let held = conn.parent.is_none() && !conn.orphan;
            (!held && conn.stage != Stage::Done).then(|| unheld(sock, conn))
        });
        let over = self.tcp.time_wait.latest(self.net.now).map(|(left, tuple)| Unheld {
            domain: if tuple.local_ip.is_ipv4() { Domain::INET } else { Domain::INET6 },
            state: info::TIME_WAIT,
            local: tuple.local(),
            peer: tuple.remote(),
            device: tuple.scope,
            unread: 0,
            unsent: 0,
            remaining: Some(left.into()),
        });
        alive.chain(over).take(limit).collect()
    }
}

fn unheld(sock: &Sock, conn: &Conn) -> Unheld {
    Unheld {
        domain: sock.domain,
        state: info::state(conn),
        local: conn.tuple.local(),
        peer: conn.tuple.remote(),
        device: conn.scope.unwrap_or(0),
        unread: conn.received(),
        unsent: conn.outstanding(),
        remaining: None,
    }
}
