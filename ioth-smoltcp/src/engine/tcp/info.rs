//! TCP_INFO: what a connection can tell of itself.

use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;

use super::conn::{Conn, Stage};
use super::{Role, Stream};

/// `struct tcp_info` of linux/tcp.h up to `tcpi_total_rto_time`, as Linux has had it since its version 6.7. A caller with more room
/// is told this length.
pub(crate) const LEN: usize = 248;

/// The states of linux/tcp_states.h.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
pub(super) const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;
const CLOSING: u8 = 11;

/// TCP_CA_Open, TCP_CA_Recovery, TCP_CA_Loss
const CA_OPEN: u8 = 0;
const CA_RECOVERY: u8 = 3;
const CA_LOSS: u8 = 4;
/// TCPI_OPT_SACK, TCPI_OPT_WSCALE
const OPT_SACK: u8 = 2;
const OPT_WSCALE: u8 = 4;
/// tcpi_delivery_rate_app_limited, the lowest of the bits in its byte.
const APP_LIMITED: u8 = if cfg!(target_endian = "little") { 1 } else { 0x80 };

/// What cannot be said of a socket that never was connected, as Linux has it: no threshold yet, MSS and windows of
/// RFC 9293 and RFC 6928, times in microseconds.
const INFINITE: u32 = 0x7fff_ffff;
const DEFAULT_MSS: u32 = 536;
const INITIAL_WINDOW: u32 = 10;
const INITIAL_RTO: u32 = 1_000_000;
const REORDERING: u32 = 3;
const ACK_TIMEOUT: u32 = 40_000;

/// `struct tcp_info` of a socket now.
pub(super) fn of(stream: &Stream, now: Instant) -> [u8; LEN] {
    match &stream.role {
        Role::Idle => {
            let words = Words { rto: INITIAL_RTO, snd_mss: DEFAULT_MSS, rttvar: 250_000, ..Words::default() };
            emit([CLOSE, 0, 0, 0, 0, 0, 0, APP_LIMITED], words, &Totals::default())
        }
        Role::Listener(listener) => {
            // Linux: for a listener tcpi_unacked is the length of its queue, tcpi_sacked the backlog.
            let words = Words {
                unacked: count(listener.ready.len()),
                sacked: count(listener.backlog),
                ssthresh: 0,
                ..Words::default()
            };
            emit([LISTEN, 0, 0, 0, 0, 0, 0, 0], words, &Totals { least_rtt: 0, ..Totals::default() })
        }
        Role::Connection(conn) => connection(conn, now),
    }
}

fn connection(conn: &Conn, now: Instant) -> [u8; LEN] {
    let facts = conn.facts(now);
    let options = if facts.scales.is_some() { OPT_WSCALE } else { 0 } | if facts.sack { OPT_SACK } else { 0 };
    // A bit field each: tcpi_snd_wscale is the lower half of the byte on a little-endian machine, the upper one on a
    // big-endian one.
    let (send, receive) = facts.scales.unwrap_or((0, 0));
    let scales = if cfg!(target_endian = "little") { send | receive << 4 } else { send << 4 | receive };
    let mss = count(conn.mss());
    let words = Words {
        rto: facts.rto,
        ato: ACK_TIMEOUT,
        snd_mss: mss,
        // What came, and as long as nothing long has come a guess (Linux's TCP_MSS_DEFAULT).
        rcv_mss: facts.counts.longest_in.max(DEFAULT_MSS.min(count(facts.announced_mss))),
        unacked: count(facts.in_flight.div_ceil(conn.mss().max(1))),
        retrans: u32::from(facts.recovering || facts.timeouts > 0),
        last_data_sent: facts.last_sent,
        last_data_recv: facts.last_received,
        last_ack_recv: facts.last_heard,
        pmtu: facts.path_mtu,
        rcv_ssthresh: facts.receive_limit,
        rtt: facts.rtt,
        rttvar: facts.rttvar,
        advmss: count(facts.announced_mss),
        snd_cwnd: facts.window_segments.max(INITIAL_WINDOW),
        rcv_space: facts.receive_space,
        total_retrans: facts.retransmits,
        ..Words::default()
    };
    let ca_state = match facts {
        _ if facts.timeouts > 0 => CA_LOSS,
        _ if facts.recovering => CA_RECOVERY,
        _ => CA_OPEN,
    };
    let timeouts = facts.timeouts.min(255) as u8;
    let counts = facts.counts;
    let totals = Totals {
        bytes_acked: counts.acknowledged,
        bytes_received: counts.received,
        segs_out: counts.segments_out,
        segs_in: counts.segments_in,
        notsent_bytes: count(facts.unsent),
        least_rtt: facts.least_rtt.unwrap_or(u32::MAX),
        data_segs_in: counts.data_segments_in,
        data_segs_out: counts.data_segments_out,
        delivered: counts.delivered,
        bytes_sent: counts.sent,
        bytes_retrans: counts.sent_again,
        snd_wnd: facts.send_window,
        rcv_wnd: facts.receive_window,
        total_rto: counts.timeouts,
    };
    // Nothing waits but what the program gives: a rate would say nothing of the path.
    let limited = if facts.unsent == 0 { APP_LIMITED } else { 0 };
    emit([state(conn), ca_state, timeouts, 0, timeouts, options, scales, limited], words, &totals)
}

pub(super) fn state(conn: &Conn) -> u8 {
    if conn.stage == Stage::Done {
        return CLOSE;
    }
    match conn.state() {
        // Linux has TIME-WAIT in a table of its own; the socket is closed.
        State::Closed | State::TimeWait => CLOSE,
        State::Listen => LISTEN,
        State::SynSent => SYN_SENT,
        State::SynReceived => SYN_RECV,
        State::Established => ESTABLISHED,
        State::FinWait1 => FIN_WAIT1,
        State::FinWait2 => FIN_WAIT2,
        State::CloseWait => CLOSE_WAIT,
        State::Closing => CLOSING,
        State::LastAck => LAST_ACK,
    }
}

/// The numbers of `struct tcp_info`, in its order and units: bytes, segments, microseconds, milliseconds for the times
/// since something happened.
struct Words {
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
}

impl Default for Words {
    fn default() -> Self {
        Words {
            rto: 0,
            ato: 0,
            snd_mss: 0,
            rcv_mss: 0,
            unacked: 0,
            sacked: 0,
            lost: 0,
            retrans: 0,
            fackets: 0,
            last_data_sent: 0,
            last_ack_sent: 0,
            last_data_recv: 0,
            last_ack_recv: 0,
            pmtu: 0,
            rcv_ssthresh: 0,
            rtt: 0,
            rttvar: 0,
            ssthresh: INFINITE,
            snd_cwnd: INITIAL_WINDOW,
            advmss: 0,
            reordering: REORDERING,
            rcv_rtt: 0,
            rcv_space: 0,
            total_retrans: 0,
        }
    }
}

/// What came with later versions of the structure. What the stack does not know is not here, and 0: rates, times that were spent
/// waiting, marks of congestion, packets that came out of order.
struct Totals {
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    least_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivered: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    snd_wnd: u32,
    rcv_wnd: u32,
    total_rto: u16,
}

impl Default for Totals {
    fn default() -> Self {
        Totals {
            bytes_acked: 0,
            bytes_received: 0,
            segs_out: 0,
            segs_in: 0,
            notsent_bytes: 0,
            // Linux: none was measured.
            least_rtt: u32::MAX,
            data_segs_in: 0,
            data_segs_out: 0,
            delivered: 0,
            bytes_sent: 0,
            bytes_retrans: 0,
            snd_wnd: 0,
            rcv_wnd: 0,
            total_rto: 0,
        }
    }
}

fn emit(bytes: [u8; 8], words: Words, totals: &Totals) -> [u8; LEN] {
    let words = [
        words.rto,
        words.ato,
        words.snd_mss,
        words.rcv_mss,
        words.unacked,
        words.sacked,
        words.lost,
        words.retrans,
        words.fackets,
        words.last_data_sent,
        words.last_ack_sent,
        words.last_data_recv,
        words.last_ack_recv,
        words.pmtu,
        words.rcv_ssthresh,
        words.rtt,
        words.rttvar,
        words.ssthresh,
        words.snd_cwnd,
        words.advmss,
        words.reordering,
        words.rcv_rtt,
        words.rcv_space,
        words.total_retrans,
    ];
    let mut info = [0; LEN];
    info[..8].copy_from_slice(&bytes);
    for (at, word) in info[8..].chunks_exact_mut(4).zip(words) {
        at.copy_from_slice(&word.to_ne_bytes());
    }
    let mut put = |at: usize, bytes: &[u8]| info[at..at + bytes.len()].copy_from_slice(bytes);
    // tcpi_pacing_rate, tcpi_max_pacing_rate: nothing is held back.
    put(104, &[0xff; 16]);
    for (at, number) in [
        (120, totals.bytes_acked),
        (128, totals.bytes_received),
        (200, totals.bytes_sent),
        (208, totals.bytes_retrans),
    ] {
        put(at, &number.to_ne_bytes());
    }
    for (at, number) in [
        (136, totals.segs_out),
        (140, totals.segs_in),
        (144, totals.notsent_bytes),
        (148, totals.least_rtt),
        (152, totals.data_segs_in),
        (156, totals.data_segs_out),
        (192, totals.delivered),
        (228, totals.snd_wnd),
        (232, totals.rcv_wnd),
    ] {
        put(at, &number.to_ne_bytes());
    }
    put(240, &totals.total_rto.to_ne_bytes());
    info
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
