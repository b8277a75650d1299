//! Which segments a connection takes: what is out of order, forged blindly, or contradicts what was said before does
//! not reach smoltcp, which looks at acknowledgements first and takes any RST within its window.
//!
//! Read first: RFC 9293 §3.10.7.4, RFC 5961 (blind attacks), RFC 5927 (ICMP).

use ioth_vde::Frame;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpProtocol, TcpPacket, TcpSeqNumber};

use super::{Conn, Stage};
use crate::engine::tcp::context::Contexts;
use crate::engine::tcp::recovery::is_newer;
use crate::engine::wire::{self, IpAttrs, TCP_HEADER, ip_header_len};

/// Linux's tcp_invalid_ratelimit: time between two answers to what is not acceptable.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// No segment is older than this many bytes: the largest window of all (RFC 7323 §2.3).
const OLDEST: i64 = 1 << 30;

/// What a connection knows of its sequence numbers beside smoltcp, which does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guard {
    /// RCV.NXT
    pub(super) expected: u32,
    /// IRS: of the peer's SYN.
    pub(super) peer_initial: u32,
    /// Behind the last byte that was taken, in order or not.
    pub(super) reaches: u32,
    /// SND.MAX: behind what was sent, but for a window probe's byte.
    sent: u32,
    /// Where the peer's FIN is that overtook data before it.
    fin: Option<u32>,
    challenged: Option<Instant>,
}

/// See [`Conn::mark`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    received: usize,
    finished: bool,
    opening: bool,
    closed: bool,
}

/// What is to be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be processed.
    Take,
    /// Nobody hears of it.
    Drop,
    /// RFC 5961's challenge ACK: whoever sent it is told where we are, and if it was the peer, it comes back with the
    /// right number.
    Challenge,
}

impl Conn {
    /// Judges a segment before smoltcp sees it, and takes off what may not be processed of an acceptable one.
    pub(crate) fn judge(&mut self, now: Instant, packet: &mut Frame, tcp_at: usize) -> Verdict {
        let mut tcp = TcpPacket::new_unchecked(&mut packet[tcp_at..]);
        let length = tcp.payload_mut().len() + usize::from(tcp.syn()) + usize::from(tcp.fin());
        if tcp.rst() {
            // smoltcp knows no RST with other flags, Linux no others beside it.
            tcp.set_syn(false);
            tcp.set_fin(false);
            tcp.set_psh(false);
        }
        let state = self.state();
        let expected = self.guard.expected;
        let sequence = tcp.seq_number().0 as u32;
        let Some(una) = self.known_acknowledgement() else {
            return match state {
                State::SynSent => Verdict::Take,
                // A handshake under way ends by the exact number as well, also one that was closed meanwhile.
                _ if tcp.rst() && sequence != expected => Verdict::Drop,
                _ => self.fit(packet, tcp_at),
            };
        };
        let ack = tcp.ack_number().0 as u32;
        let beyond = sequence.wrapping_sub(expected);
        let finished = is_finished(state);
        if tcp.rst() {
            // RFC 5961 §3.2: "If the RST bit is set and the sequence number exactly matches the next expected sequence
            // number (RCV.NXT), then TCP MUST reset the connection." Linux: or the number of the peer's FIN.
            if finished && beyond == u32::MAX {
                tcp.set_seq_number(TcpSeqNumber(expected as i32));
                return Verdict::Take;
            }
            // What is acceptable is challenged: RFC 9293 §3.10.7.4 looks at the segment's end as well, as Linux does.
            let end = beyond.wrapping_add(length as u32) as usize;
            return match beyond {
                0 => Verdict::Take,
                _ if (beyond as usize) < self.receive_room() || end < length => self.challenge(now),
                _ => Verdict::Drop,
            };
        }
        // RFC 5961 §4.2: "irrespective of the sequence number". In TIME-WAIT the demultiplexer decides.
        if tcp.syn() {
            return self.challenge(now);
        }
        if !tcp.ack() {
            return Verdict::Drop;
        }
        // RFC 5961 §5.2: "SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT". smoltcp would take an acknowledgement of what was
        // given and not sent yet.
        if is_newer(ack, self.sent.0) || is_newer(una.wrapping_sub(self.cell.size().send() as u32), ack) {
            return self.challenge(now);
        }
        let payload = tcp.payload_mut().len();
        if is_newer(una, ack) {
            // RFC 9293 §3.10.7.4: "If the ACK is a duplicate, it can be ignored", and only it: smoltcp would drop the data
            // as well.
            if payload == 0 && !tcp.fin() {
                return Verdict::Drop;
            }
            tcp.set_ack_number(TcpSeqNumber(una as i32));
            tcp.set_window_len(self.flight.window);
        }
        // RFC 9293 §3.10.7.4: "This should not occur since a FIN has been received from the remote side. Ignore the segment
        // text."
        if finished && (beyond as usize) < self.cell.socket().recv_capacity() && (payload > 0 || tcp.fin()) {
            tcp.set_fin(false);
            let data_at = tcp_at + usize::from(tcp.header_len());
            shorten(packet, data_at);
            return Verdict::Take;
        }
        self.fit(packet, tcp_at)
    }

    /// Cuts off what there is no room for, and remembers a FIN that comes too early.
    ///
    /// smoltcp thinks of the first window as scaled, and would take more than its buffer holds.
    fn fit(&mut self, packet: &mut Frame, tcp_at: usize) -> Verdict {
        let room = self.receive_room();
        let mut tcp = TcpPacket::new_unchecked(&mut packet[tcp_at..]);
        let data_at = tcp_at + usize::from(tcp.header_len());
        let sequence = tcp.seq_number().0 as u32;
        // Negative where it begins with what is here already (RFC 9293 §3.4).
        let beyond = i64::from(sequence.wrapping_sub(self.guard.expected) as i32);
        // Half of all numbers away old and new are the same to smoltcp, whose arithmetic fails.
        if beyond < -OLDEST {
            return Verdict::Challenge;
        }
        let payload = tcp.payload_mut().len();
        let room = room as i64;
        if payload > 0 && beyond + payload as i64 > room {
            if beyond >= room {
                return Verdict::Challenge;
            }
            tcp.set_fin(false);
            shorten(packet, data_at + (room - beyond) as usize);
        } else if tcp.fin() && beyond > 0 && beyond <= room {
            self.guard.fin.get_or_insert(sequence.wrapping_add(payload as u32));
        }
        Verdict::Take
    }

    /// Bytes from what is expected on that there is room for and that the peer may send.
    fn receive_room(&self) -> usize {
        let room = self.cell.socket().recv_capacity() - self.received();
        room.min(self.space.offered.map_or(self.space.first_offer, |edge| self.until(edge)))
    }

    /// Bytes behind what is expected among which there may be some that came out of order.
    pub(super) fn overtaken(&self) -> usize {
        (self.guard.reaches.wrapping_sub(self.guard.expected) as i32).max(0) as usize
    }

    /// A SYN with this sequence number was taken.
    pub(super) fn expect_after(&mut self, syn: u32) {
        self.guard.peer_initial = syn;
        self.guard.expected = syn.wrapping_add(1);
        self.guard.reaches = self.guard.expected;
    }

    /// What has to be known of a connection before it is fed, to be [noted](Self::note) afterwards.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            received: self.received(),
            finished: is_finished(self.state()),
            // A SYN that comes later is none of the connection's.
            opening: self.state() == State::SynSent,
            closed: self.is_window_closed(),
        }
    }

    /// Notes what became of a segment that was taken.
    pub(crate) fn note(&mut self, now: Instant, packet: &Frame, tcp_at: usize, before: Mark) {
        let fin = u32::from(is_finished(self.state()) && !before.finished);
        let more = self.received().saturating_sub(before.received) as u32;
        self.guard.expected = self.guard.expected.wrapping_add(more + fin);
        let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
        let payload = packet.len() - tcp_at - usize::from(tcp.header_len());
        self.count_in(payload, more + fin);
        if before.opening && tcp.syn() {
            self.expect_after(tcp.seq_number().0 as u32);
        } else if payload > 0 {
            let end = (tcp.seq_number().0 as u32).wrapping_add(payload as u32);
            // What is old, by half of all numbers even, is not there.
            let ahead = end.wrapping_sub(self.guard.expected) as usize;
            if ahead <= self.cell.socket().recv_capacity() && ahead > self.overtaken() {
                self.guard.reaches = end;
            }
        }
        // From now on there is progress to wait for.
        if before.closed && !self.is_window_closed() {
            self.flight.stuck_since = now;
        }
        if let Some(una) = self.known_acknowledgement()
            && is_newer(una, self.guard.sent)
        {
            self.guard.sent = una;
        }
    }

    /// The peer's FIN that came too early, once everything before it is here: smoltcp has forgotten it.
    pub(crate) fn overtaken_fin(&mut self) -> Option<Frame> {
        let fin = self.guard.fin?;
        if is_newer(fin, self.guard.expected) {
            return None;
        }
        self.guard.fin = None;
        let open = matches!(self.state(), State::Established | State::FinWait1 | State::FinWait2);
        if !open || fin != self.guard.expected {
            return None;
        }
        let una = self.known_acknowledgement()?;
        let mut packet = self.peer_segment(fin, una, self.flight.window, 0);
        let ip = ip_header_len(self.tuple.local_ip);
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip..]);
        tcp.set_fin(true);
        Some(packet)
    }

    /// A segment leaves that is no RST. One without data is given the sequence number that RFC 9293 wants.
    ///
    /// RFC 9293 §3.10.7.4: `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`. After a time-out smoltcp begins anew at SND.UNA, and sends
    /// acknowledgements with what it has come to since. A peer that has received more takes them for old: when both
    /// ends are there, neither hears of the other's acknowledgements any more.
    pub(super) fn note_sent(&mut self, packet: &mut Frame, tcp_at: usize) {
        let mut tcp = TcpPacket::new_unchecked(&mut packet[tcp_at..]);
        if tcp.ack() {
            self.guard.expected = tcp.ack_number().0 as u32;
        }
        let len = tcp.segment_len();
        let end = (tcp.seq_number().0 as u32).wrapping_add(len as u32);
        let probes_window = len == 1 && !tcp.fin() && self.is_window_closed();
        if tcp.syn() {
            self.guard.sent = end;
        } else if len == 0 {
            tcp.set_seq_number(TcpSeqNumber(self.guard.sent as i32));
        } else if is_newer(end, self.guard.sent) && !probes_window {
            self.guard.sent = end;
        }
    }

    /// Has smoltcp say where it is, by way of a byte that it has long had.
    pub(crate) fn state_position(&mut self, contexts: &mut Contexts, now: Instant, out: &mut Vec<Frame>) {
        let Some(una) = self.known_acknowledgement() else { return };
        let long_had = self.guard.expected.wrapping_sub(2);
        let packet = self.peer_segment(long_had, una, self.flight.window, 1);
        self.process(contexts, now, &packet, out);
    }

    /// Whether a sequence number that an ICMP error quotes is of something that was sent and not acknowledged.
    ///
    /// RFC 5927 §4.1: "TCP SHOULD check that the TCP sequence number contained in the payload of the ICMP error message is
    /// within the range SND.UNA =< SEG.SEQ < SND.NXT." Linux takes SND.NXT, too.
    pub(crate) fn is_in_flight(&self, sequence: u32) -> bool {
        // Before, there is the SYN alone.
        let una = self.known_acknowledgement().unwrap_or(self.sent.0.wrapping_sub(1));
        sequence.wrapping_sub(una) <= self.sent.0.wrapping_sub(una)
    }

    /// Whether the peer takes nothing for now.
    pub(super) fn is_window_closed(&self) -> bool {
        self.known_acknowledgement().is_some() && self.flight.window == 0
    }

    /// SND.UNA, once the handshake is complete.
    fn known_acknowledgement(&self) -> Option<u32> {
        self.recovery.acknowledged().filter(|_| self.stage != Stage::Opening)
    }

    /// A segment as the peer would send it, an acknowledgement first of all.
    pub(super) fn peer_segment(&self, sequence: u32, ack: u32, window: u16, payload: usize) -> Frame {
        let ip = ip_header_len(self.tuple.remote_ip);
        let mut packet = Frame::new(ip + TCP_HEADER + payload);
        packet.fill(0);
        let attrs = IpAttrs::new(IpProtocol::Tcp, 64);
        wire::emit_ip(&mut packet, self.tuple.remote_ip, self.tuple.local_ip, attrs);
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip..]);
        tcp.set_src_port(self.tuple.remote_port);
        tcp.set_dst_port(self.tuple.local_port);
        tcp.set_header_len(TCP_HEADER as u8);
        tcp.set_seq_number(TcpSeqNumber(sequence as i32));
        tcp.set_ack_number(TcpSeqNumber(ack as i32));
        tcp.set_ack(true);
        tcp.set_window_len(window);
        packet
    }

    fn challenge(&mut self, now: Instant) -> Verdict {
        if self.guard.challenged.is_some_and(|last| now < last + CHALLENGE_INTERVAL) {
            return Verdict::Drop;
        }
        self.guard.challenged = Some(now);
        Verdict::Challenge
    }
}

/// Whether the peer's FIN has been taken.
fn is_finished(state: State) -> bool {
    matches!(state, State::CloseWait | State::Closing | State::LastAck | State::TimeWait)
}

/// Cuts an IP packet off behind its first `len` bytes.
fn shorten(packet: &mut Frame, len: usize) {
    packet.truncate(len);
    if packet[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&((len - wire::IPV6_HEADER) as u16).to_be_bytes());
    }
}
