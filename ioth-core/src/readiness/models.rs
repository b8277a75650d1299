//! Every order of execution of "set and notify" against "wait", by loom: a lost wake-up is a deadlock there.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ioth-core --lib readiness::models`

use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use loom::sync::Mutex;
use loom::thread;

use super::{Events, Readiness};

const IN: Events = Events::IN;
const OUT: Events = Events::OUT;
const NONE: Events = Events::empty();

#[test]
fn a_parked_thread_hears_of_a_change() {
    loom::model(|| {
        let readiness = Arc::new(Readiness::new(NONE));
        let waiter = spawn_wait(&readiness, IN);
        tell(&readiness, IN);
        waiter.join().unwrap();
    });
}

#[test]
fn a_task_hears_of_a_change() {
    loom::model(|| {
        let readiness = Arc::new(Readiness::new(NONE));
        let waiter = spawn_poll(&readiness, IN);
        tell(&readiness, IN);
        waiter.join().unwrap();
    });
}

#[test]
fn a_change_that_does_not_matter_comes_first() {
    loom::model(|| {
        let readiness = Arc::new(Readiness::new(NONE));
        let waiter = spawn_wait(&readiness, IN);
        tell(&readiness, OUT);
        tell(&readiness, IN | OUT);
        waiter.join().unwrap();
    });
}

#[test]
fn two_waiters_for_different_things() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let readiness = Arc::new(Readiness::new(NONE));
        let reader = spawn_wait(&readiness, IN);
        let writer = spawn_poll(&readiness, OUT);
        tell(&readiness, IN);
        tell(&readiness, IN | OUT);
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// Two threads run the stack, as two calls do: under its lock they set, and after unlocking they notify.
#[test]
fn two_threads_change_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let readiness = Arc::new(Readiness::new(NONE));
        let stack = Arc::new(Mutex::new(NONE));
        let waiter = spawn_wait(&readiness, IN | OUT);
        let other = {
            let (readiness, stack) = (readiness.clone(), stack.clone());
            thread::spawn(move || add(&readiness, &stack, OUT))
        };
        add(&readiness, &stack, IN);
        other.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(readiness.events(), IN | OUT);
    });
}

fn tell(readiness: &Readiness, events: Events) {
    if readiness.set(events) {
        readiness.notify();
    }
}

fn add(readiness: &Readiness, stack: &Mutex<Events>, events: Events) {
    let mut all = stack.lock().unwrap();
    *all |= events;
    let told = readiness.set(*all);
    drop(all);
    if told {
        readiness.notify();
    }
}

fn spawn_wait(readiness: &Arc<Readiness>, interest: Events) -> thread::JoinHandle<()> {
    let readiness = readiness.clone();
    thread::spawn(move || assert!(readiness.wait(interest, None).intersects(interest)))
}

fn spawn_poll(readiness: &Arc<Readiness>, interest: Events) -> thread::JoinHandle<()> {
    struct Task(loom::sync::Notify);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }

    let readiness = readiness.clone();
    thread::spawn(move || {
        let task = Arc::new(Task(loom::sync::Notify::new()));
        let waker = Waker::from(task.clone());
        loop {
            match readiness.poll_ready(interest, &waker) {
                Poll::Ready(events) => return assert!(events.intersects(interest)),
                Poll::Pending => task.0.wait(),
            }
        }
    })
}
