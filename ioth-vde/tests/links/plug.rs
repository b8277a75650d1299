//! A link, somebody who keeps what comes, and waiting with a deadline.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ioth_vde::{Batch, Frame, Link, LinkError, Receiver, open};

/// How long anything may take; a broken test ends then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A link with somebody who keeps what comes.
#[derive(Debug)]
pub(crate) struct Plug {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) seen: Arc<Seen>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Vec<u8>>,
    writable: bool,
    down: Option<LinkError>,
}

impl Receiver for Seen {
    fn receive(&self, frames: &mut Batch) {
        self.change(|state| state.frames.extend(frames.drain(..).map(|frame| frame.to_vec())));
    }

    fn writable(&self) {
        self.change(|state| state.writable = true);
    }

    fn down(&self, cause: LinkError) {
        self.change(|state| assert_eq!(state.down.replace(cause), None));
    }
}

impl Seen {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait<T>(&self, what: &str, mut condition: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(value) = condition(&mut state) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no {what} (have {} frames, down: {:?})",
                state.frames.len(),
                state.down
            );
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// That many frames, taken out.
    pub(crate) fn frames(&self, count: usize) -> Vec<Vec<u8>> {
        self.wait(&format!("{count} frames"), |state| {
            (state.frames.len() >= count).then(|| std::mem::take(&mut state.frames))
        })
    }

    /// What came up to this frame, with it, taken out.
    pub(crate) fn until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        self.wait("the frame", |state| {
            let at = state.frames.iter().position(|frame| frame == last)?;
            Some(state.frames.drain(..=at).collect())
        })
    }

    /// Waits until what has come is so.
    pub(crate) fn holds(&self, what: &str, condition: impl Fn(&[Vec<u8>]) -> bool) {
        self.wait(what, |state| condition(&state.frames).then_some(()));
    }

    /// Nothing has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().unwrap().frames.is_empty()
    }

    /// The end was not told yet.
    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().unwrap().down.is_none()
    }

    /// It was told that there is room.
    pub(crate) fn may_send(&self) -> bool {
        self.state.lock().unwrap().writable
    }

    /// What has come, taken out.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state.lock().unwrap().frames)
    }

    pub(crate) fn down(&self) -> LinkError {
        self.wait("end", |state| state.down.clone())
    }
}

impl Plug {
    pub(crate) fn new(vnl: &str) -> Self {
        Plug::over(open(vnl).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Somebody on a link.
    pub(crate) fn over(link: Arc<dyn Link>) -> Self {
        let seen = Arc::<Seen>::default();
        link.attach(seen.clone()).unwrap();
        Plug { link, seen }
    }

    /// Sends all of them, waiting for room.
    pub(crate) fn send(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut batch: Batch = frames.into_iter().map(|bytes| Frame::copy_of(&bytes)).collect();
        self.link.send(&mut batch).unwrap();
        while !batch.is_empty() {
            self.seen.wait("room", |state| std::mem::take(&mut state.writable).then_some(()));
            self.link.send(&mut batch).unwrap();
        }
    }

    /// Sends a frame again and again until the other side has it: until the two know of each other it may be lost.
    pub(crate) fn reach(&self, other: &Plug, frame: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send([frame.to_vec()]);
            let mut state = other.seen.state.lock().unwrap();
            state = other.seen.changed.wait_timeout(state, Duration::from_millis(20)).unwrap().0;
            if state.frames.iter().any(|seen| seen == frame) {
                return;
            }
            assert!(Instant::now() < deadline, "no frame comes over (down: {:?})", state.down);
        }
    }

    /// Both ways by frames of many sizes; each side is to send within `window` frames.
    pub(crate) fn exchange(&self, other: &Plug, longest: usize) {
        self.reach(other, &frame(2, 1, 60, 0));
        other.reach(self, &frame(1, 2, 60, 0));
        // What was sent too often may still be under way.
        let mut number = 1;
        for _ in 0..20 {
            for (from, to, ends) in [(self, other, (2, 1)), (other, self, (1, 2))] {
                let window: Vec<_> = [14, 15, 60, 61, 576, longest - 1, longest]
                    .into_iter()
                    .map(|len| {
                        number += 1;
                        frame(ends.0, ends.1, len, number)
                    })
                    .collect();
                from.send(window.clone());
                let expected = window.clone();
                to.seen.wait("the window", |state| {
                    state.frames.retain(|frame| expected.contains(frame));
                    (state.frames.len() >= expected.len()).then_some(())
                });
                to.seen.change(|state| assert_eq!(std::mem::take(&mut state.frames), window));
            }
        }
    }
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An Ethernet frame of this length between two numbered nodes.
pub(crate) fn frame(to: u8, from: u8, len: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    if to == 0xff {
        frame[..6].fill(0xff);
    }
    if len >= 18 {
        frame[14..18].copy_from_slice(&number.to_be_bytes());
    }
    frame
}

/// A directory of one's own, which goes with it.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ioth-links-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    /// A path in it, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
