//! Options of tcp(7), with Linux's defaults, and what follows from them.

use smoltcp::socket::tcp::CongestionControl;
use smoltcp::time::Duration;

/// Linux's TCP_TIMEOUT_INIT and TCP_RTO_MAX in seconds: the first wait for an answer, and the longest.
const FIRST_WAIT: u32 = 1;
const LONGEST_WAIT: u32 = 120;
/// Linux's net.ipv4.tcp_fin_timeout in seconds, and the most that TCP_LINGER2 takes.
const FIN_TIMEOUT: i32 = 60;
const MAX_FIN_TIMEOUT: i32 = 120;
/// Linux's net.ipv4.tcp_syn_retries.
const SYN_RETRIES: u8 = 6;
/// The smallest clamp of a window that is there: half of SOCK_MIN_RCVBUF.
const MIN_WINDOW: u32 = 1152;

/// What tcp(7) sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpOptions {
    /// TCP_NODELAY
    pub(crate) no_delay: bool,
    /// TCP_CORK
    pub(crate) cork: bool,
    /// TCP_QUICKACK
    pub(crate) quick_ack: bool,
    /// TCP_MAXSEG as it was set.
    pub(crate) max_segment: Option<u16>,
    /// TCP_KEEPIDLE in seconds.
    pub(crate) keep_idle: u32,
    /// TCP_KEEPINTVL in seconds.
    pub(crate) keep_interval: u32,
    /// TCP_KEEPCNT
    pub(crate) keep_count: u32,
    /// TCP_USER_TIMEOUT in milliseconds; 0 leaves it to the stack.
    pub(crate) user_timeout: u32,
    /// TCP_SYNCNT
    pub(crate) syn_retries: u8,
    /// TCP_DEFER_ACCEPT, as the number of answers to a SYN that its seconds are worth.
    pub(crate) defer_accept: u8,
    /// TCP_LINGER2 in seconds; 0 stands for the default, a negative number for no waiting at all.
    linger2: i32,
    /// TCP_WINDOW_CLAMP; 0 for none.
    window_clamp: u32,
    /// TCP_CONGESTION
    pub(crate) congestion: Congestion,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions {
            no_delay: false,
            cork: false,
            quick_ack: true,
            max_segment: None,
            keep_idle: 7200,
            keep_interval: 75,
            keep_count: 9,
            user_timeout: 0,
            syn_retries: SYN_RETRIES,
            defer_accept: 0,
            linger2: 0,
            window_clamp: 0,
            congestion: Congestion::Cubic,
        }
    }
}

impl TcpOptions {
    /// How long an attempt to connect lasts: each SYN is given twice the time of the one before.
    pub(crate) fn connect_timeout(&self) -> Duration {
        let retries = seconds_of(u32::from(self.syn_retries) + 1);
        match self.user_timeout {
            0 => retries,
            timeout => Duration::from_millis(u64::from(timeout)).min(retries),
        }
    }

    /// TCP_USER_TIMEOUT, when it is on.
    pub(crate) fn user_timeout(&self) -> Option<Duration> {
        (self.user_timeout != 0).then(|| Duration::from_millis(u64::from(self.user_timeout)))
    }

    pub(crate) fn set_defer_accept(&mut self, seconds: i32) {
        let seconds = u32::try_from(seconds).unwrap_or(0);
        let answers = (1..u8::MAX).find(|&answers| waits(u32::from(answers)) >= seconds);
        self.defer_accept = if seconds == 0 { 0 } else { answers.unwrap_or(u8::MAX) };
    }

    /// TCP_DEFER_ACCEPT in seconds, rounded up as Linux does.
    pub(crate) fn defer_accept_seconds(&self) -> u32 {
        waits(u32::from(self.defer_accept))
    }

    pub(crate) fn set_linger2(&mut self, seconds: i32) {
        self.linger2 = seconds.clamp(-1, MAX_FIN_TIMEOUT);
    }

    pub(crate) fn linger2(&self) -> i32 {
        if self.linger2 == 0 { FIN_TIMEOUT } else { self.linger2 }
    }

    /// How long a closed socket waits in FIN-WAIT-2; `None`: not at all.
    pub(crate) fn fin_timeout(&self) -> Option<Duration> {
        u64::try_from(self.linger2()).ok().map(Duration::from_secs)
    }

    /// False where Linux refuses: only a closed socket may have its clamp taken away.
    pub(crate) fn set_window_clamp(&mut self, clamp: i32, closed: bool) -> bool {
        if clamp == 0 && !closed {
            return false;
        }
        // Linux compares as an unsigned number with an int: what is negative is small.
        self.window_clamp = u32::try_from(clamp).map_or(MIN_WINDOW, |clamp| match clamp {
            0 => 0,
            clamp => clamp.max(MIN_WINDOW),
        });
        true
    }

    pub(crate) fn window_clamp(&self) -> u32 {
        self.window_clamp
    }
}

/// How a sender finds out how much the network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Congestion {
    /// RFC 9438
    Cubic,
    /// RFC 5681
    Reno,
}

impl Congestion {
    /// By TCP_CONGESTION's name.
    pub(crate) fn by_name(name: &[u8]) -> Option<Self> {
        match name {
            b"cubic" => Some(Congestion::Cubic),
            b"reno" => Some(Congestion::Reno),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Congestion::Cubic => "cubic",
            Congestion::Reno => "reno",
        }
    }

    pub(super) fn control(self) -> CongestionControl {
        match self {
            Congestion::Cubic => CongestionControl::Cubic,
            Congestion::Reno => CongestionControl::Reno,
        }
    }
}

/// The seconds that `count` waits take, each of twice the length of the one before (Linux's retrans_to_secs()).
fn waits(count: u32) -> u32 {
    (0..count)
        .map(|n| FIRST_WAIT.checked_shl(n).unwrap_or(LONGEST_WAIT).clamp(FIRST_WAIT, LONGEST_WAIT))
        .sum()
}

fn seconds_of(count: u32) -> Duration {
    Duration::from_secs(u64::from(waits(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_takes_as_long_as_its_retries() {
        let after =
            |syn_retries| TcpOptions { syn_retries, ..TcpOptions::default() }.connect_timeout().secs();
        assert_eq!([1, 2, 6, 7, 127].map(after), [3, 7, 127, 247, 127 + 121 * 120]);
        let user = TcpOptions { user_timeout: 1500, ..TcpOptions::default() };
        assert_eq!(user.connect_timeout().total_millis(), 1500);
    }

    #[test]
    fn deferral_is_rounded_as_linux_rounds_it() {
        let rounded = |seconds| {
            let mut options = TcpOptions::default();
            options.set_defer_accept(seconds);
            options.defer_accept_seconds()
        };
        let given = [-1, 0, 1, 2, 3, 4, 10, 100, 1000];
        assert_eq!(given.map(rounded), [0, 0, 1, 3, 3, 7, 15, 127, 1087]);
        assert!(rounded(i32::MAX) > 20_000, "at most 255 answers");
    }
}
