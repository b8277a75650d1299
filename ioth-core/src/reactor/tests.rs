use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};

use super::*;
use crate::spin::Spinner;

const LONG: Duration = Duration::from_secs(20);

/// Reads what comes and tells of it; `end` decides after which events it drops its own registration.
struct Probe {
    stream: UnixStream,
    events: Sender<Events>,
    end: Events,
    registration: Mutex<Option<Registration>>,
}

impl Probe {
    fn new(end: Events) -> (Arc<Probe>, UnixStream, Receiver<Events>) {
        let (stream, peer) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let (events, seen) = mpsc::channel();
        (Arc::new(Probe { stream, events, end, registration: Mutex::new(None) }), peer, seen)
    }

    fn register(self: &Arc<Self>, reactor: &Reactor, interest: Events) {
        *self.registration.lock() =
            Some(reactor.register(self.stream.as_fd(), interest, self.clone()).unwrap());
    }
}

impl Source for Probe {
    fn ready(&self, events: Events) {
        let mut registration = self.registration.lock();
        let _ = (&self.stream).read(&mut [0; 16]);
        if events.intersects(self.end) {
            *registration = None;
        }
        let _ = self.events.send(events);
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// Runs what is ready, and what was ready when it was called.
fn settle(reactor: &Reactor) {
    for _ in 0..2 {
        let (done, finished) = mpsc::channel();
        reactor.defer(Box::new(move || done.send(()).unwrap()));
        finished.recv_timeout(LONG).expect("the reactor's thread lives");
    }
}

#[test]
fn data_is_told_until_it_is_read() {
    let reactor = Reactor::start().unwrap();
    let (probe, mut peer, seen) = Probe::new(Events::HUP);
    probe.register(&reactor, Events::IN);
    settle(&reactor);
    assert!(seen.try_recv().is_err(), "nothing to tell");
    peer.write_all(&[0; 40]).unwrap();
    for _ in 0..3 {
        assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN, "sixteen bytes a time");
    }
    settle(&reactor);
    assert!(seen.try_recv().is_err());
    drop(peer);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN | Events::HUP);
    settle(&reactor);
    assert!(seen.try_recv().is_err(), "it took itself out from within");
}

#[test]
fn the_interest_can_change() {
    let reactor = Reactor::start().unwrap();
    let (probe, mut peer, seen) = Probe::new(Events::HUP | Events::OUT);
    probe.register(&reactor, Events::empty());
    peer.write_all(b"x").unwrap();
    settle(&reactor);
    assert!(seen.try_recv().is_err());
    probe.registration.lock().as_ref().unwrap().set_interest(Events::IN).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN);
    probe.registration.lock().as_ref().unwrap().set_interest(Events::OUT).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::OUT);
    settle(&reactor);
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_hang_up_is_told_without_interest() {
    let reactor = Reactor::start().unwrap();
    let (probe, peer, seen) = Probe::new(Events::HUP);
    probe.register(&reactor, Events::empty());
    drop(peer);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::HUP);
}

#[test]
fn nothing_is_told_after_deregistration() {
    let reactor = Reactor::start().unwrap();
    let (probe, mut peer, seen) = Probe::new(Events::empty());
    probe.register(&reactor, Events::IN);
    *probe.registration.lock() = None;
    peer.write_all(b"x").unwrap();
    settle(&reactor);
    assert!(seen.try_recv().is_err());
    assert_eq!(Arc::strong_count(&probe), 1, "the reactor keeps nothing");
    probe.register(&reactor, Events::IN);
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN, "and it can come back");
    *probe.registration.lock() = None;
}

#[test]
fn a_descriptor_is_registered_once() {
    let reactor = Reactor::start().unwrap();
    let (probe, _peer, _seen) = Probe::new(Events::empty());
    let _registration = reactor.register(probe.stream.as_fd(), Events::IN, probe.clone()).unwrap();
    let again = reactor.register(probe.stream.as_fd(), Events::IN, probe.clone());
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let file = fs::File::open("/proc/self/status").unwrap();
    let cannot = reactor.register(file.as_fd(), Events::IN, probe.clone());
    assert_eq!(cannot.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_number_that_was_used_again_stays_with_its_new_owner() {
    let reactor = Reactor::start().unwrap();
    let (older, _peer, _) = Probe::new(Events::empty());
    let mut fd = older.stream.try_clone().unwrap().into();
    let stale = reactor.register(std::os::fd::OwnedFd::as_fd(&fd), Events::IN, older.clone()).unwrap();
    let (younger, mut peer, seen) = Probe::new(Events::empty());
    // Against the rules: the number is closed, and another file gets it, before the registration ends.
    nix::unistd::dup2(&younger.stream, &mut fd).unwrap();
    *younger.registration.lock() = Some(reactor.register(fd.as_fd(), Events::IN, younger.clone()).unwrap());
    drop(stale);
    peer.write_all(b"x").unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN);
    *younger.registration.lock() = None;
}

#[test]
fn a_panic_ends_its_source_only() {
    #[derive(Debug)]
    struct Panics(UnixStream);

    impl Source for Panics {
        fn ready(&self, _: Events) {
            panic!("expected by the test");
        }
    }

    let reactor = Reactor::start().unwrap();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    let source = Arc::new(Panics(stream));
    let registration = reactor.register(source.0.as_fd(), Events::IN, source.clone()).unwrap();
    reactor.defer(Box::new(|| panic!("expected by the test")));
    settle(&reactor);
    assert_eq!(Arc::strong_count(&source), 1);
    let gone = registration.set_interest(Events::OUT);
    assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    drop(registration);

    let (probe, mut peer, seen) = Probe::new(Events::IN);
    probe.register(&reactor, Events::IN);
    peer.write_all(b"x").unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN);
}

#[test]
fn many_threads_come_and_go() {
    let reactor = Reactor::start().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..300 {
                    let (probe, mut peer, seen) = Probe::new(Events::empty());
                    probe.register(&reactor, Events::IN);
                    peer.write_all(b"x").unwrap();
                    if round % 2 == 0 {
                        assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN);
                    }
                    *probe.registration.lock() = None;
                }
            });
        }
    });
    assert!(reactor.shared.table.lock().entries.is_empty());
    assert!(reactor.shared.table.lock().by_fd.is_empty());
}

struct Bell {
    name: u32,
    rung: Sender<u32>,
    timer: Mutex<Option<Timer>>,
    again: Mutex<Vec<Instant>>,
}

impl Bell {
    fn new(reactor: &Reactor, name: u32, rung: &Sender<u32>) -> Arc<Bell> {
        let (timer, again) = (Mutex::new(None), Mutex::new(Vec::new()));
        let bell = Arc::new(Bell { name, rung: rung.clone(), timer, again });
        let target: Weak<dyn Alarm> = Arc::downgrade(&(bell.clone() as Arc<dyn Alarm>));
        *bell.timer.lock() = Some(reactor.timer(target));
        bell
    }

    fn set(&self, deadline: Instant) {
        self.timer.lock().as_ref().unwrap().set(deadline);
    }
}

impl Alarm for Bell {
    fn fire(&self) {
        if let Some(again) = self.again.lock().pop() {
            self.set(again);
        }
        let _ = self.rung.send(self.name);
    }
}

#[test]
fn timers_fire_in_their_order_and_not_early() {
    let reactor = Reactor::start().unwrap();
    let (rung, heard) = mpsc::channel();
    let now = Instant::now();
    let bells: Vec<_> = (0..10).map(|name| Bell::new(&reactor, name, &rung)).collect();
    for bell in bells.iter().rev() {
        bell.set(now + Duration::from_millis(3 * u64::from(bell.name)));
    }
    for name in 0..10 {
        assert_eq!(heard.recv_timeout(LONG).unwrap(), name);
        assert!(Instant::now() >= now + Duration::from_millis(3 * u64::from(name)));
    }
    settle(&reactor);
    assert!(heard.try_recv().is_err(), "once each");
}

#[test]
fn a_deadline_can_move_both_ways() {
    let reactor = Reactor::start().unwrap();
    let (rung, heard) = mpsc::channel();
    let (first, second) = (Bell::new(&reactor, 1, &rung), Bell::new(&reactor, 2, &rung));
    let now = Instant::now();
    first.set(now + Duration::from_millis(5));
    second.set(now + Duration::from_secs(3600));
    first.set(now + Duration::from_millis(20));
    second.set(now + Duration::from_millis(10));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), 2);
    assert_eq!(heard.recv_timeout(LONG).unwrap(), 1);
    assert!(Instant::now() >= now + Duration::from_millis(20));
    first.set(now);
    assert_eq!(heard.recv_timeout(LONG).unwrap(), 1, "one in the past");
}

#[test]
fn cleared_and_dropped_timers_are_silent() {
    let reactor = Reactor::start().unwrap();
    let (rung, heard) = mpsc::channel();
    let bells: Vec<_> = (0..4).map(|name| Bell::new(&reactor, name, &rung)).collect();
    let soon = Instant::now() + Duration::from_millis(10);
    bells.iter().for_each(|bell| bell.set(soon));
    bells[0].timer.lock().as_ref().unwrap().clear();
    *bells[1].timer.lock() = None;
    let mut bells = bells.into_iter().skip(2);
    drop(bells.next()); // the timer keeps nobody alive
    assert_eq!(heard.recv_timeout(LONG).unwrap(), 3);
    settle(&reactor);
    assert!(heard.try_recv().is_err());
}

#[test]
fn an_alarm_may_set_its_timer() {
    let reactor = Reactor::start().unwrap();
    let (rung, heard) = mpsc::channel();
    let bell = Bell::new(&reactor, 0, &rung);
    let now = Instant::now();
    *bell.again.lock() = vec![now + Duration::from_millis(5), now, now];
    bell.set(now);
    for _ in 0..4 {
        heard.recv_timeout(LONG).unwrap();
    }
    settle(&reactor);
    assert!(heard.try_recv().is_err());
}

#[test]
fn moving_a_deadline_away_does_not_grow_the_heap() {
    let reactor = Reactor::start().unwrap();
    let (rung, _heard) = mpsc::channel();
    let bell = Bell::new(&reactor, 0, &rung);
    let far = Instant::now() + Duration::from_secs(3600);
    for round in 0..1000 {
        bell.set(far + Duration::from_secs(round));
        bell.timer.lock().as_ref().unwrap().clear();
    }
    assert!(reactor.shared.agenda.lock().heap.len() <= 2);
}

#[test]
fn an_idle_reactor_does_not_wake() {
    let reactor = Reactor::start().unwrap();
    let (probe, _peer, seen) = Probe::new(Events::empty());
    probe.register(&reactor, Events::IN);
    let (tell, told) = mpsc::channel();
    reactor.defer(Box::new(move || tell.send(fs::read_link("/proc/thread-self").unwrap()).unwrap()));
    let status = std::path::Path::new("/proc").join(told.recv_timeout(LONG).unwrap()).join("status");
    let read = || {
        let text = fs::read_to_string(&status).unwrap();
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        (field("State:"), field("voluntary_ctxt_switches:"))
    };
    let asleep = Instant::now() + LONG;
    while !read().0.starts_with('S') || reactor.shared.agenda.lock().sleep != Sleep::Forever {
        assert!(Instant::now() < asleep, "it does not go to sleep: {:?}", read());
        thread::yield_now();
    }
    let before = read();
    // Far longer than any tick that one might fear.
    assert!(seen.recv_timeout(Duration::from_millis(300)).is_err());
    assert_eq!(read(), before);
    *probe.registration.lock() = None;
}

#[test]
fn jobs_know_their_rounds() {
    let reactor = Reactor::global();
    let (tell, told) = mpsc::channel();
    let order = move |what: &'static str| {
        let tell = tell.clone();
        move || tell.send(what).unwrap()
    };
    let first = order("deferred");
    let later = order("next round");
    let last = order("end of round");
    let within = order("deferred by a job");
    reactor.defer(Box::new(move || {
        Reactor::global().defer_round(Box::new(later));
        Reactor::global().defer(Box::new(within));
        assert!(Reactor::at_end_of_round(last).is_ok());
        first();
    }));
    let order: Vec<_> = (0..4).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(order, ["deferred", "end of round", "deferred by a job", "next round"]);
    assert!(Reactor::at_end_of_round(|| ()).is_err(), "this is no thread with rounds");
}

#[test]
fn what_holds_is_told_before_the_next_round() {
    let reactor = Reactor::global();
    let (probe, mut peer, seen) = Probe::new(Events::empty());
    probe.register(reactor, Events::IN);
    let (tell, told) = mpsc::channel();
    reactor.defer(Box::new(move || {
        peer.write_all(b"x").unwrap();
        Reactor::global().defer_round(Box::new(move || {
            tell.send(seen.try_recv().is_ok()).unwrap();
            drop(peer);
        }));
    }));
    assert_eq!(told.recv_timeout(LONG), Ok(true));
}

/// Descriptors, deadlines and jobs are found by a look as by a sleeper; when nothing comes it sleeps all the same.
#[test]
fn one_that_looks_misses_nothing() {
    let reactor = Reactor::start().unwrap();
    reactor.look_before_sleep();
    let (probe, mut peer, seen) = Probe::new(Events::HUP);
    probe.register(&reactor, Events::IN);
    let (rung, heard) = mpsc::channel();
    let bell = Bell::new(&reactor, 7, &rung);
    for round in 0..400 {
        // Now and then after pauses of different lengths, so that it looks at one time and sleeps at another.
        if round % 40 == 0 {
            thread::park_timeout(Duration::from_micros(37 * round));
        }
        peer.write_all(b"x").unwrap();
        assert_eq!(seen.recv_timeout(LONG).unwrap(), Events::IN);
        bell.set(Instant::now() + Duration::from_micros(round));
        assert_eq!(heard.recv_timeout(LONG).unwrap(), 7);
        settle(&reactor);
    }
    let deadline = Instant::now() + LONG;
    while Spinner::count() > 0 {
        assert!(Instant::now() < deadline, "it looks for ever");
        thread::yield_now();
    }
}
