//! When a call that waits is to end.

use crate::errno::{Errno, Result};
use crate::sys::raw;

/// A moment, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: i128,
}

impl Deadline {
    const SECOND: i128 = 1_000_000_000;
    const MILLISECOND: i128 = 1_000_000;

    /// A time from now, `EINVAL` for none.
    pub(crate) fn new(time: libc::timespec) -> Result<Deadline> {
        let (seconds, nanoseconds) = (i128::from(time.tv_sec), i128::from(time.tv_nsec));
        if seconds < 0 || !(0..Deadline::SECOND).contains(&nanoseconds) {
            return Err(Errno::INVAL);
        }
        Ok(Deadline { at: raw::monotonic()? + seconds * Deadline::SECOND + nanoseconds })
    }

    pub(crate) fn after(milliseconds: i64) -> Result<Deadline> {
        Ok(Deadline { at: raw::monotonic()? + i128::from(milliseconds) * Deadline::MILLISECOND })
    }

    /// What is left, in milliseconds, rounded up.
    pub(crate) fn left(&self) -> Result<i64> {
        let left = self.nanoseconds()?;
        Ok(i64::try_from((left + Deadline::MILLISECOND - 1) / Deadline::MILLISECOND).unwrap_or(i64::MAX))
    }

    /// What is left.
    pub(crate) fn left_exactly(&self) -> Result<libc::timespec> {
        let left = self.nanoseconds()?;
        let seconds = i64::try_from(left / Deadline::SECOND).unwrap_or(i64::MAX);
        Ok(libc::timespec { tv_sec: seconds, tv_nsec: (left % Deadline::SECOND) as i64 })
    }

    fn nanoseconds(&self) -> Result<i128> {
        Ok((self.at - raw::monotonic()?).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_nearer_and_stays_there() {
        let deadline = Deadline::after(3_600_000).unwrap();
        assert!((1..=3_600_000).contains(&deadline.left().unwrap()));
        assert!((1..3_600).contains(&deadline.left_exactly().unwrap().tv_sec));
        let past = Deadline::after(-5).unwrap();
        assert_eq!(past.left(), Ok(0));
        assert_eq!(past.left_exactly().unwrap().tv_nsec, 0);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(Deadline::new(libc::timespec { tv_sec, tv_nsec }).err(), Some(Errno::INVAL));
        }
        assert!(Deadline::new(libc::timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 }).is_ok());
    }
}
