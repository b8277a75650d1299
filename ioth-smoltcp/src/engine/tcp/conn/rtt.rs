//! How long a round trip takes (RFC 6298, with Linux's bounds).

use smoltcp::time::{Duration, Instant};

/// RFC 6298 §2.1, before the first measurement.
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// Linux's TCP_RTO_MIN, which is the least that is added to the round trip.
const MIN_MARGIN: u64 = 200_000;
/// A longer round trip than this is taken for this one: nothing overflows.
const MAX_SAMPLE: u64 = 120_000_000;

/// The estimate and the measurement under way; in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    /// RFC 6298's SRTT and RTTVAR, once there was a measurement.
    estimate: Option<(u64, u64)>,
    /// The sequence number whose acknowledgement ends the measurement, and when it began.
    timing: Option<(u32, Instant)>,
    /// The shortest one that was measured.
    least: Option<u64>,
}

impl Rtt {
    /// A segment that ends at `end` leaves for the first time.
    pub(crate) fn on_send(&mut self, now: Instant, end: u32) {
        self.timing.get_or_insert((end, now));
    }

    /// RFC 6298 §3, Karn's algorithm: what was sent twice can't be measured.
    pub(crate) fn on_retransmit(&mut self) {
        self.timing = None;
    }

    /// Everything before `ack` has arrived.
    pub(crate) fn on_ack(&mut self, now: Instant, ack: u32) {
        let Some((_, began)) = self.timing.filter(|(end, _)| ack.wrapping_sub(*end) as i32 >= 0) else {
            return;
        };
        self.timing = None;
        let sample = (now - began).total_micros().min(MAX_SAMPLE);
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                ((7 * smoothed + sample) / 8, (3 * variation + smoothed.abs_diff(sample)) / 4)
            }
        });
    }

    /// The shortest round trip in microseconds.
    pub(crate) fn least(&self) -> Option<u64> {
        self.least
    }

    /// SRTT in microseconds.
    pub(crate) fn smoothed(&self) -> Option<u64> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    /// RTTVAR in microseconds.
    pub(crate) fn variation(&self) -> Option<u64> {
        self.estimate.map(|(_, variation)| variation)
    }

    /// How long to wait for an acknowledgement before everything is sent again.
    pub(crate) fn timeout(&self) -> Duration {
        match self.estimate {
            None => INITIAL_RTO,
            Some((smoothed, variation)) => Duration::from_micros(smoothed + (4 * variation).max(MIN_MARGIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converges_on_the_round_trip() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), INITIAL_RTO);
        let mut now = Instant::ZERO;
        for n in 1..100u32 {
            rtt.on_send(now, n);
            rtt.on_send(now + Duration::from_secs(9), n + 1);
            rtt.on_ack(now, n - 1);
            now += Duration::from_millis(30);
            rtt.on_ack(now, n);
        }
        assert_eq!(rtt.smoothed(), Some(30_000));
        assert!(rtt.variation().unwrap() < 100);
        assert_eq!(rtt.timeout().total_millis(), 230);
    }

    #[test]
    fn what_was_sent_twice_is_not_measured() {
        let mut rtt = Rtt::default();
        rtt.on_send(Instant::ZERO, 5);
        rtt.on_retransmit();
        rtt.on_ack(Instant::from_secs(7), 5);
        assert_eq!(rtt.smoothed(), None);
    }
}
