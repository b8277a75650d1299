//! Recovery from several losses in one window (RFC 6582, NewReno) and from losses in small ones (RFC 5827, early
//! retransmit), which smoltcp leaves out.
//!
//! smoltcp retransmits the first missing segment after three duplicate acknowledgements. The acknowledgement that this
//! brings is a *partial* one when more is missing; RFC 6582 §3.2 step 3 retransmits the next hole at once, smoltcp waits
//! for three more duplicates, which nobody sends, and then for its time-out of a second. So a partial acknowledgement
//! is fed to it again as the duplicates that it waits for. So is a duplicate when fewer segments are in flight than it
//! takes to bring three: RFC 5827 §3.1, "ER_thresh = FlightSize - 1". Where many are missing, see [`super::sack`].

/// Duplicate acknowledgements that make smoltcp retransmit (RFC 5681 §3.2).
pub(crate) const FAST_RETRANSMIT: usize = 3;

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// It says nothing new, unless it tells a new window.
    Plain,
    /// It moves on.
    New,
    /// It says the same as before; this often.
    Duplicate(usize),
    /// It moves on, but not to the end of what was sent when the recovery began.
    Partial,
}

impl Ack {
    /// Whether something was acknowledged that was not before.
    pub(crate) fn moves_on(self) -> bool {
        matches!(self, Ack::New | Ack::Partial)
    }
}

/// What has been acknowledged, and up to where the current recovery goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovery {
    acknowledged: Option<u32>,
    window: u16,
    duplicates: usize,
    /// RFC 6582's `recover`: the highest sequence number sent when the recovery began.
    point: Option<u32>,
}

impl Recovery {
    /// An acknowledgement arrived; `sent` is the highest sequence number sent. `pure`: without data, SYN or FIN.
    pub(crate) fn on_ack(&mut self, ack: u32, window: u16, sent: u32, pure: bool) -> Ack {
        if is_newer(ack, sent) {
            return Ack::Plain;
        }
        let Some(before) = self.acknowledged else {
            (self.acknowledged, self.window) = (Some(ack), window);
            return Ack::New;
        };
        if ack == before {
            let duplicate = pure && window == self.window && ack != sent;
            self.window = window;
            if !duplicate {
                return Ack::Plain;
            }
            self.duplicates += 1;
            if self.duplicates == FAST_RETRANSMIT {
                self.point.get_or_insert(sent);
            }
            return Ack::Duplicate(self.duplicates);
        }
        if !is_newer(ack, before) {
            return Ack::Plain;
        }
        (self.acknowledged, self.window, self.duplicates) = (Some(ack), window, 0);
        let partial = self.point.is_some_and(|point| is_newer(point, ack));
        if partial {
            return Ack::Partial;
        }
        self.point = None;
        Ack::New
    }

    /// RFC 9293's SND.UNA, once the peer has acknowledged our SYN.
    pub(crate) fn acknowledged(&self) -> Option<u32> {
        self.acknowledged
    }

    /// Whether a loss is being made good.
    pub(crate) fn is_under_way(&self) -> bool {
        self.point.is_some()
    }

    /// Whether smoltcp has been made to send the first missing segment again, or is about to be.
    pub(crate) fn is_fast(&self) -> bool {
        self.point.is_some() && self.duplicates != FAST_RETRANSMIT
    }

    /// Bytes that were sent and not acknowledged.
    pub(crate) fn in_flight(&self, sent: u32) -> usize {
        self.acknowledged.map_or(0, |acknowledged| sent.wrapping_sub(acknowledged) as usize)
    }

    /// smoltcp is made to retransmit: everything up to `sent` belongs to this recovery.
    pub(crate) fn begin(&mut self, sent: u32) {
        self.point.get_or_insert(sent);
    }

    /// A segment is sent again. If it isn't the first one missing, a time-out sends everything again, in order.
    pub(crate) fn on_retransmit(&mut self, sequence: u32) {
        if self.acknowledged != Some(sequence) {
            self.point = None;
        }
    }
}

/// Whether sequence number `a` lies behind `b` (RFC 9293 §3.4).
pub(crate) fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partial_acknowledgement_counts_until_the_recovery_is_over() {
        let start = u32::MAX - 1000;
        let at = |n: u32| start.wrapping_add(n);
        let mut recovery = Recovery::default();
        assert_eq!(recovery.on_ack(at(0), 10, at(5000), true), Ack::New);
        for n in 1..=3 {
            assert_eq!(recovery.on_ack(at(0), 10, at(5000), false), Ack::Plain, "data is no duplicate");
            assert_eq!(recovery.on_ack(at(0), 10, at(5000), true), Ack::Duplicate(n));
        }
        recovery.on_retransmit(at(0));
        assert_eq!(recovery.on_ack(at(1000), 10, at(6000), true), Ack::Partial);
        assert_eq!(recovery.on_ack(at(3000), 10, at(7000), false), Ack::Partial);
        assert!(recovery.is_under_way());
        assert_eq!(
            recovery.on_ack(at(5000), 10, at(7000), true),
            Ack::New,
            "everything that was out when it began"
        );
        assert_eq!(recovery.on_ack(at(6000), 10, at(7000), true), Ack::New);
        assert_eq!(recovery.on_ack(at(7001), 10, at(7000), true), Ack::Plain, "never sent");
        assert_eq!(recovery.acknowledged(), Some(at(6000)));
    }

    #[test]
    fn window_updates_and_time_outs() {
        let mut recovery = Recovery::default();
        assert_eq!(recovery.on_ack(0, 1, 5000, true), Ack::New);
        for window in 2..9 {
            assert_eq!(recovery.on_ack(0, window, 5000, true), Ack::Plain, "no duplicates");
        }
        assert_eq!(recovery.on_ack(1000, 9, 5000, true), Ack::New);
        for _ in 0..3 {
            recovery.on_ack(1000, 9, 5000, true);
        }
        recovery.on_retransmit(2000);
        assert_eq!(recovery.on_ack(2000, 9, 5000, true), Ack::New, "a time-out sends all of it");
    }
}
