//! Work of the reactor's thread that waits in between: futures, their wake-ups, deadlines.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use ioth::core::reactor::{Alarm, Reactor, Timer};
use parking_lot::Mutex;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that goes on in the reactor's thread until it is ready, or this is dropped.
pub(crate) struct Task(Arc<Shared>);

impl Task {
    /// A task to be begun by [`start`](Task::start).
    pub(crate) fn new(job: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(Arc::new(Shared {
            job: Mutex::new(Some(Box::pin(job))),
            queued: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
        }))
    }

    /// Lets it come as far as it does without waiting: whether it is ready.
    pub(crate) fn start(&self) -> bool {
        self.0.clone().run()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::SeqCst);
        // Locked, it is running, perhaps further up in this very thread, and looks at the mark after that.
        if let Some(mut job) = self.0.job.try_lock() {
            let job = job.take();
            drop(job);
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("queued", &self.0.queued).finish_non_exhaustive()
    }
}

struct Shared {
    /// Until it is ready.
    job: Mutex<Option<Job>>,
    /// Whether a turn is due.
    queued: AtomicBool,
    /// Nobody wants it any more.
    dropped: AtomicBool,
}

impl Shared {
    fn run(self: Arc<Self>) -> bool {
        let waker = Waker::from(self.clone());
        let mut job = self.job.lock();
        self.queued.store(false, Ordering::SeqCst);
        let Some(pending) = job.as_mut() else { return true };
        let ready = pending.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if ready || self.dropped.load(Ordering::SeqCst) {
            *job = None;
        }
        ready
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            // Not here: whoever wakes has other things to do, and may hold a lock of the stack.
            Reactor::global().defer(Box::new(move || {
                self.run();
            }));
        }
    }
}

/// What `job` gives, unless `deadline` comes first.
pub(crate) async fn until<F: Future>(deadline: Instant, job: F) -> Option<F::Output> {
    let mut job = pin!(job);
    let sleeper = Arc::new(Sleeper::default());
    let target: Weak<dyn Alarm> = Arc::downgrade(&sleeper) as Weak<dyn Alarm>;
    let mut timer: Option<Timer> = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = job.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if Instant::now() >= deadline {
            return Poll::Ready(None);
        }
        *sleeper.0.lock() = Some(context.waker().clone());
        timer.get_or_insert_with(|| Reactor::global().timer(target.clone())).set(deadline);
        Poll::Pending
    })
    .await
}

/// What both give, side by side.
pub(crate) async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (None, None);
    std::future::poll_fn(|context| {
        if a_done.is_none() {
            a_done = ready(a.as_mut().poll(context));
        }
        if b_done.is_none() {
            b_done = ready(b.as_mut().poll(context));
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Whoever waits for a deadline.
#[derive(Default)]
struct Sleeper(Mutex<Option<Waker>>);

impl Alarm for Sleeper {
    fn fire(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Waits for a future in the calling thread.
    pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            std::thread::park();
        }
    }

    #[test]
    fn a_task_goes_on_when_it_is_woken_and_ends_when_it_is_dropped() {
        let (sender, receiver) = mpsc::channel();
        let ready = Task::new({
            let sender = sender.clone();
            async move { sender.send(1).unwrap() }
        });
        assert!(ready.start());
        assert_eq!(receiver.recv(), Ok(1));

        let soon = Instant::now() + Duration::from_millis(1);
        let later = Task::new({
            let sender = sender.clone();
            async move {
                assert_eq!(until(soon, std::future::pending::<()>()).await, None);
                sender.send(2).unwrap();
            }
        });
        assert!(!later.start());
        assert_eq!(receiver.recv(), Ok(2));

        let never = Task::new(async move {
            std::future::pending::<()>().await;
            sender.send(3).unwrap();
        });
        assert!(!never.start());
        drop(never);
        drop((ready, later));
        assert!(receiver.recv().is_err(), "the last sender went with its task");
    }

    #[test]
    fn a_deadline_takes_nothing_from_what_is_ready() {
        let past = Instant::now();
        assert_eq!(block_on(until(past, async { 1 })), Some(1));
        assert_eq!(block_on(until(past, std::future::pending::<()>())), None);
    }
}
