//! What somebody who sees every frame knows of the TCP connections on the wire.

use std::net::{IpAddr, SocketAddr};

use super::packet::{ACK, FIN, RST, SYN, Seen, URG};

/// Flows that are remembered; the oldest goes.
const MAX_FLOWS: usize = 512;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    /// Behind the highest sequence number that it sent.
    pub(super) end: Option<u32>,
    /// The highest that it acknowledged.
    pub(super) acked: Option<u32>,
    /// The window that it offered last, unscaled.
    pub(super) window: u16,
    first: u32,
}

/// A connection between the two nodes, or one that was.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// `ends[i]` is at node i.
    pub(super) ends: [SocketAddr; 2],
    pub(super) sides: [Side; 2],
    /// A forged segment may have been taken for a real one: what the ends think may differ from now on, rightly.
    pub(super) tainted: bool,
    /// Counts the connections that had these ends.
    pub(super) life: u32,
}

#[derive(Debug, Default)]
pub(super) struct Flows(pub(super) Vec<Flow>);

impl Flows {
    /// A node's segment went onto the wire. Returns the flow and its life.
    pub(super) fn observe(
        &mut self,
        from: usize,
        seen: &Seen,
        node_of: impl Fn(IpAddr) -> Option<usize>,
    ) -> Option<(usize, u32)> {
        if node_of(seen.dst.0) != Some(1 - from) {
            return None;
        }
        let mut ends = [SocketAddr::from(seen.src), SocketAddr::from(seen.dst)];
        if from == 1 {
            ends.swap(0, 1);
        }
        let begins = seen.flags & (SYN | ACK) == SYN;
        let at = self.find(&ends).unwrap_or_else(|| {
            if self.0.len() >= MAX_FLOWS {
                self.0.remove(0);
            }
            // What was forged for one that is new in its middle is not known any more.
            self.0.push(Flow { ends, sides: [Side::default(); 2], tainted: !begins, life: 0 });
            self.0.len() - 1
        });
        let flow = &mut self.0[at];
        if begins && flow.sides[from].end.is_some() && flow.sides[from].first != seen.sequence {
            flow.sides = [Side::default(); 2];
            flow.life += 1;
        }
        let side = &mut flow.sides[from];
        if begins || side.end.is_none() {
            side.first = seen.sequence;
        }
        // A RST may carry a number that its sender only repeats.
        if seen.flags & RST == 0 {
            side.end = Some(later(side.end, seen.end()));
            if seen.flags & ACK != 0 {
                side.acked = Some(later(side.acked, seen.ack));
            }
            side.window = seen.window;
        }
        Some((at, flow.life))
    }

    pub(super) fn find(&self, ends: &[SocketAddr; 2]) -> Option<usize> {
        self.0.iter().position(|flow| flow.ends == *ends)
    }
}

impl Flow {
    /// Whether a forged segment towards node `to` changes nothing if both ends do what RFC 9293 and RFC 5961 say, but
    /// for windows, which heal by themselves.
    ///
    /// `under_way`: bytes that the node may have sent and heard nothing of. Not all of them were on the wire: a segment
    /// that waits for the neighbour's address, or was given up with it, has left TCP, on Linux as here (SND.NXT is
    /// behind it, SIOCOUTQNSD does not count it), and who acknowledges it acknowledges what was sent. Then the peer
    /// has a hole that nobody fills.
    pub(super) fn is_harmless(&self, to: usize, forged: &Seen, under_way: u32) -> bool {
        let (sender, receiver) = (&self.sides[1 - to], &self.sides[to]);
        let (Some(expected), Some(sent), Some(acked)) = (receiver.acked, receiver.end, sender.acked) else {
            return false;
        };
        if forged.flags & RST != 0 {
            // It may end the connection; what was received before is not touched.
            return true;
        }
        if forged.flags & SYN != 0 {
            return sender.acked.is_some() && receiver.acked.is_some();
        }
        // Urgent data is taken out of the stream where a stack knows it.
        if forged.flags & URG != 0 {
            return false;
        }
        let sent = later(Some(sent), acked.wrapping_add(under_way));
        let new_ack = is_newer(forged.ack, acked) && !is_newer(forged.ack, sent);
        let new_data = (forged.len > 0 || forged.flags & FIN != 0) && is_newer(forged.end(), expected);
        !(new_ack || new_data)
    }
}

pub(super) fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

fn later(known: Option<u32>, new: u32) -> u32 {
    known.filter(|known| !is_newer(new, *known)).unwrap_or(new)
}
