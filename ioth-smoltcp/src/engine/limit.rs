//! A token bucket, for what strangers can make us send.

use smoltcp::time::Instant;

/// RFC 4443 §2.4(f): messages a second, and in one burst.
const RATE: i64 = 1000;
const BURST: i64 = 50;

/// Counts what may be sent; full at first.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    tokens: i64,
    filled: Instant,
}

impl Default for TokenBucket {
    fn default() -> Self {
        TokenBucket { tokens: BURST, filled: Instant::ZERO }
    }
}

impl TokenBucket {
    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let earned = (now - self.filled).total_micros() as i64 * RATE / 1_000_000;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(BURST);
            self.filled = now;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::default();
        let sent = |bucket: &mut TokenBucket, ms| {
            (0..1000).filter(|_| bucket.take(Instant::from_millis(ms))).count()
        };
        assert_eq!(sent(&mut bucket, 1), 50);
        assert_eq!(sent(&mut bucket, 2), 1);
        assert_eq!(sent(&mut bucket, 12), 10);
        assert_eq!(sent(&mut bucket, 100_000), 50);
    }
}
