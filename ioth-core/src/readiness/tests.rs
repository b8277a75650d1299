use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const IN: Events = Events::IN;
const OUT: Events = Events::OUT;
const NONE: Events = Events::empty();

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn new() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn tell(readiness: &Readiness, events: Events) {
    if readiness.set(events) {
        readiness.notify();
    }
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(1))
}

#[test]
fn nobody_is_told_when_nobody_waits_or_nothing_changes() {
    let readiness = Readiness::new(OUT);
    assert_eq!(readiness.events(), OUT);
    assert!(!readiness.set(IN));
    assert_eq!(readiness.events(), IN);
    let (_, waker) = Count::new();
    assert!(readiness.poll_ready(OUT, &waker).is_pending());
    assert!(!readiness.set(IN));
    assert!(readiness.set(IN | OUT));
    readiness.notify();
    assert!(!readiness.set(OUT), "the waiter was told and is gone");
}

#[test]
fn wait_returns_what_holds_of_the_interest() {
    let readiness = Readiness::new(IN | OUT | Events::RDHUP);
    assert_eq!(readiness.wait(OUT, None), OUT);
    assert_eq!(readiness.wait(IN | Events::PRI, None), IN);
    let _ = readiness.set(Events::HUP);
    assert_eq!(readiness.wait(OUT, None), Events::HUP);
}

#[test]
fn wait_ends_at_the_deadline() {
    let readiness = Readiness::new(OUT);
    let deadline = Instant::now() + Duration::from_millis(5);
    assert_eq!(readiness.wait(IN, Some(deadline)), NONE);
    assert!(Instant::now() >= deadline);
    assert_eq!(readiness.wait(IN, Some(deadline)), NONE, "one in the past");
    assert!(!readiness.set(IN), "nobody is left in the list");
}

#[test]
fn a_waiting_thread_is_woken_by_its_own_events_only() {
    let readiness = Arc::new(Readiness::new(NONE));
    let returned = Arc::new(AtomicBool::new(false));
    let waiter = {
        let (readiness, returned) = (readiness.clone(), returned.clone());
        thread::spawn(move || {
            let events = readiness.wait(IN, None);
            returned.store(true, Ordering::SeqCst);
            events
        })
    };
    for round in 0..1000 {
        tell(&readiness, if round % 2 == 0 { OUT } else { NONE });
    }
    assert!(!returned.load(Ordering::SeqCst));
    tell(&readiness, IN | OUT);
    assert_eq!(waiter.join().unwrap(), IN);
}

#[test]
fn the_threads_own_park_token_is_left_alone() {
    thread::current().unpark();
    assert_eq!(Readiness::new(NONE).wait(IN, soon()), NONE);
    let before = Instant::now();
    thread::park_timeout(Duration::from_secs(20));
    assert!(before.elapsed() < Duration::from_secs(20), "the token was eaten");
}

#[test]
fn a_task_is_woken_once() {
    let readiness = Readiness::new(NONE);
    let (count, waker) = Count::new();
    for _ in 0..10 {
        assert!(readiness.poll_ready(IN, &waker).is_pending());
    }
    tell(&readiness, OUT);
    assert_eq!(count.get(), 0);
    tell(&readiness, IN);
    tell(&readiness, NONE);
    tell(&readiness, IN);
    assert_eq!(count.get(), 1);
    assert_eq!(readiness.poll_ready(IN, &waker), Poll::Ready(IN));
}

#[test]
fn one_task_may_wait_for_both_directions() {
    let readiness = Readiness::new(NONE);
    let (count, waker) = Count::new();
    assert!(readiness.poll_ready(IN, &waker).is_pending());
    assert!(readiness.poll_ready(OUT, &waker).is_pending());
    tell(&readiness, IN);
    assert_eq!(count.get(), 1);
}

#[test]
fn wakers_of_dropped_futures_do_not_pile_up() {
    let readiness = Readiness::new(NONE);
    let counts: Vec<_> = (0..3 * MAX_TASKS)
        .map(|_| {
            let (count, waker) = Count::new();
            assert!(readiness.poll_ready(IN, &waker).is_pending());
            count
        })
        .collect();
    assert_eq!(readiness.waiters.lock().tasks.len(), MAX_TASKS);
    tell(&readiness, IN);
    assert!(counts.iter().all(|count| count.get() == 1), "nobody is forgotten");
}

#[test]
fn a_waker_may_use_the_socket() {
    struct Reenter(Readiness);

    impl Wake for Reenter {
        fn wake(self: Arc<Self>) {
            let (_, waker) = Count::new();
            tell(&self.0, NONE);
            assert!(self.0.poll_ready(IN, &waker).is_pending());
            assert_eq!(self.0.wait(IN, soon()), NONE);
        }
    }

    let task = Arc::new(Reenter(Readiness::new(NONE)));
    assert!(task.0.poll_ready(IN, &Waker::from(task.clone())).is_pending());
    tell(&task.0, IN);
    assert_eq!(task.0.events(), NONE);
    // The list still holds a waker of the task only if it was registered again, which it was not.
    drop(task);
}

/// Two threads hand a token to and fro. A lost wake-up is a time-out.
#[test]
fn ping_pong() {
    let (ping, pong) = (Readiness::new(NONE), Readiness::new(NONE));
    let wait = |readiness: &Readiness| {
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(readiness.wait(IN, Some(deadline)), IN, "a wake-up was lost");
        tell(readiness, NONE);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                wait(&ping);
                tell(&pong, IN);
            }
        });
        for _ in 0..20_000 {
            tell(&ping, IN);
            wait(&pong);
        }
    });
}

/// Waiters whose deadline passes while they are being woken: no signal may be left for the next wait, and none be lost.
#[test]
fn deadlines_and_wake_ups_meet() {
    let readiness = Readiness::new(NONE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                tell(&readiness, IN);
                tell(&readiness, NONE);
            }
        });
        for round in 0..2000 {
            let deadline = Instant::now() + Duration::from_micros(round % 50);
            let events = readiness.wait(IN, Some(deadline));
            assert!(!events.is_empty() || Instant::now() >= deadline);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(readiness.waiters.lock().threads.is_empty());
}

proptest! {
    #[test]
    fn the_word_holds_events_and_epochs(steps in proptest::collection::vec(0u32..1 << 14, 0..50)) {
        let mut word = Word::default();
        let mut epochs = [0u16; 3];
        for bits in steps {
            let (old, new) = (word.events(), Events::from_bits_truncate(bits));
            for (epoch, bits) in epochs.iter_mut().zip([Word::READABLE, OUT, Events::PRI]) {
                *epoch += u16::from(!old.intersects(bits) && new.intersects(bits));
            }
            word = word.with_events(new);
            prop_assert_eq!(word.events(), new);
            prop_assert_eq!([word.in_epoch(), word.out_epoch(), word.pri_epoch()], epochs);
            prop_assert!(!word.is_watched());
        }
    }
}

#[test]
fn epochs_wrap_without_touching_their_neighbours() {
    let mut word = Word(Word::SIGNAL | Word::WAITERS);
    for _ in 0..=u32::from(u16::MAX) {
        word = word.with_events(IN).with_events(NONE);
    }
    assert_eq!(word, Word(Word::SIGNAL | Word::WAITERS));
}
