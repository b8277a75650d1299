//! `null://`: a link that nothing comes from and where everything vanishes.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::schemes::Spec;
use crate::tally::Tally;
use crate::{Batch, Counters, Link, LinkError, Properties, Receiver};

/// A link to nowhere.
#[derive(Debug, Default)]
pub struct Null {
    state: Mutex<State>,
    tally: Tally,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Fresh,
    /// Held only because a link holds its receiver.
    Attached(#[expect(dead_code)] Arc<dyn Receiver>),
    Detached,
}

const PROPERTIES: Properties = Properties { mtu: 1500, gso_max: 65_535, trusted: true };

pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    spec.slash(&[])?;
    Ok(Arc::new(Null::default()))
}

impl Link for Null {
    fn properties(&self) -> Properties {
        PROPERTIES
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        let mut state = self.state.lock();
        match *state {
            State::Fresh => *state = State::Attached(receiver),
            State::Attached(_) => return Err(LinkError::attached("null://")),
            State::Detached => return Err(LinkError::Detached),
        }
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        self.tally.admit(frames, &PROPERTIES);
        if matches!(*self.state.lock(), State::Detached) {
            self.tally.down(frames);
            return Err(LinkError::Detached);
        }
        let bytes = frames.iter().map(|frame| frame.len()).sum();
        self.tally.sent(frames.len(), bytes);
        frames.clear();
        Ok(())
    }

    fn detach(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Detached);
        // The receiver's drop may come back here: no lock is held.
        drop(state);
    }

    fn counters(&self) -> Counters {
        self.tally.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    #[test]
    fn everything_vanishes() {
        let link = crate::open("null://").unwrap();
        let mut batch: Batch = [Frame::copy_of(&[0; 60]), Frame::copy_of(&[0; 3])].into();
        link.send(&mut batch).unwrap();
        assert!(batch.is_empty());
        let counters = link.counters();
        assert_eq!((counters.tx_frames, counters.tx_bytes, counters.tx_bad_length), (1, 60, 1));
        link.detach();
        assert_eq!(link.send(&mut [Frame::copy_of(&[0; 60])].into()), Err(LinkError::Detached));
        assert!(crate::open("null://x/mtu=3").is_err());
    }
}
