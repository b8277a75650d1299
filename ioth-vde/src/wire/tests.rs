use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread::{self, ThreadId};

use super::*;
use crate::Frame;

/// One end of a pair of sockets; a datagram is a frame.
#[derive(Debug)]
struct Pair(UnixDatagram, Arc<OwnedFd>);

impl Wire for Pair {
    fn properties(&self) -> Properties {
        Properties { mtu: 1500, gso_max: 0, trusted: false }
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        vec![Descriptor { fd: self.1.clone(), sends: true }]
    }

    fn send(&self, frames: &mut Batch, _: &Tally) -> Result<(), Halt> {
        frames.clear();
        Ok(())
    }

    fn receive(&self, _: usize, _: usize, batch: &mut Batch, _: &Tally) -> Result<bool, Halt> {
        let mut bytes = [0; 64];
        let len = self.0.recv(&mut bytes).map_err(|_| Halt::Wait)?;
        batch.push_back(Frame::copy_of(&bytes[..len]));
        Ok(true)
    }
}

/// Tells in which thread frames came.
#[derive(Debug)]
struct Threads(mpsc::Sender<ThreadId>);

impl Receiver for Threads {
    fn receive(&self, frames: &mut Batch) {
        for _ in frames.drain(..) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    fn writable(&self) {}

    fn down(&self, _: LinkError) {}
}

struct Bench {
    port: Arc<Port>,
    network: UnixDatagram,
    came: mpsc::Receiver<ThreadId>,
}

/// Waits until it was told so often to go on.
struct Patient {
    patience: Patience,
    times: usize,
    /// What wakes it.
    waker: mpsc::Sender<Waker>,
}

impl Waiter for Patient {
    fn patience(&mut self, waker: &Waker) -> Option<Patience> {
        self.waker.send(waker.clone()).unwrap();
        self.times = self.times.checked_sub(1)?;
        Some(self.patience)
    }
}

impl Bench {
    fn new() -> Self {
        let (own, network) = UnixDatagram::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let fd = Arc::new(OwnedFd::from(own.try_clone().unwrap()));
        let port = Arc::new(Port::new("a pair", Pair(own, fd)));
        let (sender, came) = mpsc::channel();
        port.attach(Arc::new(Threads(sender))).unwrap();
        Bench { port, network, came }
    }

    /// A thread that waits at the link so many times, and what wakes it.
    fn attend(&self, patience: Patience, times: usize) -> (thread::JoinHandle<bool>, mpsc::Receiver<Waker>) {
        let port = self.port.clone();
        let (waker, wakers) = mpsc::channel();
        (thread::spawn(move || port.attend(&mut Patient { patience, times, waker })), wakers)
    }

    /// The same in this thread: whether it could.
    fn attend_here(&self) -> bool {
        let patience = Patience { awake: false, until: Some(Instant::now()) };
        let (waker, _wakers) = mpsc::channel();
        self.port.attend(&mut Patient { patience, times: 1, waker })
    }
}

const FRAME: [u8; 20] = [0; 20];
const ASLEEP: Patience = Patience { awake: false, until: None };
const AWAKE: Patience = Patience { awake: true, until: None };

#[test]
fn a_thread_that_waits_at_the_link_delivers_what_comes_and_then_leaves_it_to_the_reactor() {
    let bench = Bench::new();
    for patience in [ASLEEP, AWAKE] {
        let (attendant, wakers) = bench.attend(patience, 2);
        let id = attendant.thread().id();
        for _ in 0..2 {
            wakers.recv().unwrap();
            assert!(!bench.attend_here(), "one thread at a time");
            bench.network.send(&FRAME).unwrap();
            assert_eq!(bench.came.recv(), Ok(id));
        }
        assert!(attendant.join().unwrap());
        bench.network.send(&FRAME).unwrap();
        let reactor = bench.came.recv().unwrap();
        assert!(reactor != id && reactor != thread::current().id());
        // It looks for a further frame, and must not find the next one.
        drop(bench.port.inner.reading.lock());
        assert!(bench.attend_here());
    }
}

#[test]
fn a_waker_ends_the_wait_whenever_it_is_called() {
    let bench = Bench::new();
    for patience in [ASLEEP, AWAKE] {
        let (attendant, wakers) = bench.attend(patience, 100);
        // Called while the thread looks, before it waits, and while it waits.
        for waker in wakers {
            waker.wake();
        }
        assert!(attendant.join().unwrap());
    }
}

#[test]
fn who_waits_at_a_link_that_changes_or_ends_is_sent_away() {
    let bench = Bench::new();
    for patience in [ASLEEP, AWAKE] {
        let (attendant, wakers) = bench.attend(patience, 2);
        wakers.recv().unwrap();
        bench.port.inner.rewatch();
        assert!(!attendant.join().unwrap());
        bench.network.send(&FRAME).unwrap();
        bench.came.recv().unwrap();
    }
    let (attendant, wakers) = bench.attend(ASLEEP, 2);
    wakers.recv().unwrap();
    bench.port.detach();
    assert!(!attendant.join().unwrap());
    assert!(!bench.attend_here());
    assert!(bench.came.recv().is_err(), "the receiver was dropped");
}

#[test]
fn a_thread_that_left_its_wait_without_a_word_may_come_back() {
    let bench = Bench::new();
    std::mem::forget(Attendance::begin(&bench.port.inner));
    let port = bench.port.clone();
    assert!(thread::spawn(move || Attendance::begin(&port.inner).is_none()).join().unwrap());
    assert!(bench.attend_here());
    bench.network.send(&FRAME).unwrap();
    bench.came.recv().unwrap();
}
