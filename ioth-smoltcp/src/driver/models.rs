//! Every order of execution of the driver's protocols, by loom: a frame that lies with nobody to look at it, a sender
//! that is held and never relieved, two drainers at a time.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ioth-smoltcp --lib driver::models`
//!
//! A test that changes nothing proves nothing: without any of the fences of [`Desk`], without the look after
//! unlocking, or with `draining` taken back in a step of its own, they fail.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use super::desk::Desk;
use super::lane::{Drained, LIMIT, Lane};

/// A node: its engine keeps what it was fed.
type Node = Desk<Vec<u32>, u32>;

/// As `Node::receive` does it.
fn receive(node: &Node, frames: impl IntoIterator<Item = u32>) {
    if !node.bring(frames.into_iter()).watched {
        run(node);
    }
}

/// As `runq::run` and `Node::turn` do it. Who finds the lock taken goes.
fn run(node: &Node) {
    while !node.is_empty() {
        let Some(mut fed) = node.try_lock() else { return };
        node.take(1, |frame| fed.push(frame));
        drop(fed);
        if !node.look() {
            return;
        }
    }
}

/// As `Node::call` does it: here a call that has nothing to do with the inbox.
fn call(node: &Node) {
    drop(node.lock());
    if node.look() {
        run(node);
    }
}

/// As `spin::until` does it, for one look.
fn spin(node: &Node) {
    node.watch();
    run(node);
    if node.unwatch() {
        run(node);
    }
}

fn all_was_fed(node: &Node, expected: &[u32]) {
    let mut fed = node.lock().clone();
    assert!(node.is_empty(), "frames lie in the inbox, and nobody looks");
    fed.sort();
    assert_eq!(fed, expected);
}

#[test]
fn who_finds_the_lock_taken_can_rely_on_its_holder() {
    loom::model(|| {
        let node = Arc::new(Node::new(Vec::new()));
        let caller = spawn(&node, call);
        receive(&node, [1]);
        caller.join().unwrap();
        all_was_fed(&node, &[1]);
    });
}

#[test]
fn two_bringers_and_a_call() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let node = Arc::new(Node::new(Vec::new()));
        let caller = spawn(&node, call);
        let other = spawn(&node, |node| receive(node, [1]));
        receive(&node, [2]);
        caller.join().unwrap();
        other.join().unwrap();
        all_was_fed(&node, &[1, 2]);
    });
}

#[test]
fn one_bringers_frames_keep_their_order() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let node = Arc::new(Node::new(Vec::new()));
        let caller = spawn(&node, call);
        receive(&node, [1, 2]);
        receive(&node, [3]);
        caller.join().unwrap();
        assert_eq!(*node.lock(), [1, 2, 3]);
    });
}

#[test]
fn a_spinner_hands_over() {
    loom::model(|| {
        let node = Arc::new(Node::new(Vec::new()));
        let spinner = spawn(&node, spin);
        receive(&node, [1]);
        spinner.join().unwrap();
        all_was_fed(&node, &[1]);
    });
}

#[test]
fn a_spinner_and_a_call() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let node = Arc::new(Node::new(Vec::new()));
        let spinner = spawn(&node, spin);
        let caller = spawn(&node, call);
        receive(&node, [1]);
        spinner.join().unwrap();
        caller.join().unwrap();
        all_was_fed(&node, &[1]);
    });
}

/// A link with room for so many frames until it says that it takes more.
struct Link {
    taken: Mutex<(Vec<u32>, usize)>,
}

/// An engine's way to a link: the engine has frames to send, as many as it may.
struct Port {
    engine: Mutex<Engine>,
    lane: Lane<u32>,
    link: Link,
}

#[derive(Default)]
struct Engine {
    next: u32,
    left: u32,
    blocked: bool,
}

impl Port {
    fn new(left: u32, room: usize) -> Arc<Self> {
        let engine = Mutex::new(Engine { left, ..Engine::default() });
        Arc::new(Port { engine, lane: Lane::new(), link: Link { taken: Mutex::new((Vec::new(), room)) } })
    }

    /// As `Node::conclude` does it.
    fn conclude(&self) {
        loop {
            let mut engine = self.engine.lock().unwrap();
            if self.lane.relieve() {
                engine.blocked = false;
            }
            let mut egress = VecDeque::new();
            while engine.left > 0 && !engine.blocked && egress.len() < LIMIT {
                engine.left -= 1;
                engine.next += 1;
                egress.push_back(engine.next);
            }
            let added = self.lane.add(|frames| frames.append(&mut egress));
            engine.blocked |= added.hold;
            drop(engine);
            let mut budget = 100;
            if !added.waiting || self.lane.drain(&mut budget, |batch| self.link.send(batch)) == Drained::Done
            {
                return;
            }
        }
    }

    /// As the link's word that it takes frames again is heard.
    fn writable(&self, room: usize) {
        let mut taken = self.link.taken.lock().unwrap();
        taken.1 += room;
        drop(taken);
        self.lane.unblock();
        self.conclude();
    }

    fn all_was_sent(&self, count: u32) {
        let engine = self.engine.lock().unwrap();
        assert_eq!((engine.left, engine.blocked), (0, false), "a sender is held");
        assert!(self.lane.is_empty(), "frames lie in the lane, and nobody sends");
        assert_eq!(self.link.taken.lock().unwrap().0, (1..=count).collect::<Vec<_>>());
    }
}

impl Link {
    fn send(&self, batch: &mut VecDeque<u32>) {
        let mut taken = self.taken.lock().unwrap();
        while taken.1 > 0
            && let Some(frame) = batch.pop_front()
        {
            taken.1 -= 1;
            taken.0.push(frame);
        }
    }
}

#[test]
fn two_threads_send_by_one_lane() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let port = Port::new(3, usize::MAX / 2);
        let other = spawn(&port, Port::conclude);
        port.conclude();
        other.join().unwrap();
        port.all_was_sent(3);
    });
}

#[test]
fn a_link_blocks_and_says_when_it_takes_more() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let port = Port::new(3, 1);
        let link = spawn(&port, |port| port.writable(2));
        port.conclude();
        link.join().unwrap();
        port.all_was_sent(3);
    });
}

fn spawn<T: Send + Sync + 'static>(on: &Arc<T>, f: fn(&T)) -> thread::JoinHandle<()> {
    let on = on.clone();
    thread::spawn(move || f(&on))
}
