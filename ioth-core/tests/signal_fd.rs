//! The signal fd as other programs see it: through poll(2), select(2), and level- and edge-triggered
//! epoll(7), in a process that inherited it and has none of our code (`ioth-test-poller`).

#[path = "poller/client.rs"]
mod poller;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use ioth_core::reactor::Reactor;
use ioth_core::{Errno, Events, Readiness};
use poller::Poller;

const IN: Events = Events::IN;
const PRI: Events = Events::PRI;
const OUT: Events = Events::OUT;
const ERR: Events = Events::ERR;
const HUP: Events = Events::HUP;
const RDHUP: Events = Events::RDHUP;
const NONE: Events = Events::empty();
/// Long enough for any machine; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn nothing_but_room() {
    let mut rig = Rig::new(OUT);
    rig.shows(OUT);
    rig.edge(OUT);
    rig.no_edge();
}

#[test]
fn no_room_from_the_start() {
    let mut rig = Rig::new(NONE);
    rig.shows(NONE);
    rig.no_edge();
    rig.tell(OUT);
    rig.shows(OUT);
    rig.edge(OUT);
    rig.no_edge();
}

#[test]
fn full_and_room_again() {
    let mut rig = Rig::new(OUT);
    rig.edge(OUT);
    for _ in 0..20 {
        rig.tell(NONE);
        rig.shows(NONE);
        rig.no_edge();
        rig.tell(OUT);
        rig.shows(OUT);
        rig.edge(OUT);
        rig.no_edge();
    }
}

#[test]
fn data_and_drained() {
    let mut rig = Rig::new(OUT);
    rig.edge(OUT);
    for _ in 0..20 {
        rig.tell(IN | OUT);
        rig.shows(IN | OUT);
        rig.edge(IN | OUT);
        rig.no_edge();
        assert!(!rig.readiness.set(IN | OUT), "nothing has changed");
        rig.settle();
        rig.no_edge();
        rig.tell(OUT);
        rig.shows(OUT);
        rig.no_edge();
    }
}

#[test]
fn data_while_there_is_no_room() {
    let mut rig = Rig::new(NONE);
    for _ in 0..20 {
        rig.tell(IN);
        rig.shows(IN);
        rig.edge(IN);
        rig.no_edge();
        rig.tell(NONE);
        rig.shows(NONE);
        rig.no_edge();
    }
    rig.tell(IN | OUT);
    rig.edge(IN | OUT);
}

#[test]
fn a_bit_that_came_back_unseen_makes_an_edge() {
    let mut rig = Rig::new(IN | OUT);
    rig.edge(IN | OUT);
    for _ in 0..100 {
        // Drained, and new data before anybody could say so.
        assert!(rig.readiness.set(OUT));
        assert!(rig.readiness.set(IN | OUT));
        rig.readiness.notify();
        rig.settle();
        rig.shows(IN | OUT);
        rig.edge(IN | OUT);
        rig.no_edge();
        // Filled, and room again before the call that filled could say so.
        assert!(rig.readiness.set(IN));
        assert!(rig.readiness.set(IN | OUT));
        rig.readiness.notify();
        rig.settle();
        rig.shows(IN | OUT);
        rig.edge(IN | OUT);
        rig.no_edge();
    }
    // Nothing has piled up.
    rig.tell(OUT);
    rig.shows(OUT);
    rig.tell(NONE);
    rig.shows(NONE);
}

#[test]
fn drained_without_the_descriptor() {
    let mut rig = Rig::new(IN | OUT);
    for _ in 0..1000 {
        for events in [OUT, IN | OUT] {
            if rig.readiness.set(events) {
                rig.readiness.notify();
            }
        }
    }
    rig.shows(IN | OUT);
    rig.tell(OUT);
    rig.shows(OUT);
}

#[test]
fn urgent_data() {
    let mut rig = Rig::new(OUT);
    rig.edge(OUT);
    for _ in 0..3 {
        // Alone.
        rig.tell(IN | PRI | OUT);
        rig.shows(IN | PRI | OUT);
        rig.edge(IN | PRI | OUT);
        rig.no_edge();
        rig.tell(IN | OUT);
        rig.shows(IN | OUT);
        rig.tell(OUT);
        rig.shows(OUT);
        rig.no_edge();
        // Behind and before data, twice, and back unseen.
        rig.tell(IN | OUT);
        rig.tell(IN | PRI | OUT);
        rig.edge(IN | PRI | OUT);
        assert!(rig.readiness.set(IN | OUT));
        rig.tell(IN | PRI | OUT);
        rig.shows(IN | PRI | OUT);
        rig.edge(IN | PRI | OUT);
        rig.tell(IN | OUT);
        rig.shows(IN | OUT);
        rig.tell(OUT);
        rig.shows(OUT);
        rig.no_edge();
        // Both at once.
        rig.tell(IN | PRI | OUT);
        rig.edge(IN | PRI | OUT);
        rig.tell(OUT);
        rig.shows(OUT);
        rig.no_edge();
    }
}

#[test]
fn the_peer_writes_no_more() {
    let mut rig = Rig::new(OUT);
    rig.edge(OUT);
    rig.tell(IN | OUT | RDHUP);
    rig.shows(IN | OUT | RDHUP);
    rig.edge(IN | OUT | RDHUP);
    rig.no_edge();
    for _ in 0..3 {
        rig.tell(IN | RDHUP);
        rig.shows(IN | RDHUP);
        rig.no_edge();
        rig.tell(IN | OUT | RDHUP);
        rig.shows(IN | OUT | RDHUP);
        rig.edge(IN | OUT | RDHUP);
        rig.no_edge();
    }
    // Cannot be taken back.
    rig.tell(OUT);
    rig.shows(IN | OUT | RDHUP);
}

#[test]
fn hung_up() {
    for before in [OUT, NONE, IN | OUT, IN, IN | OUT | RDHUP, IN | RDHUP] {
        let mut rig = Rig::new(before);
        rig.et();
        rig.tell(IN | OUT | RDHUP | HUP);
        rig.shows(IN | OUT | RDHUP | HUP);
        rig.edge(IN | OUT | RDHUP | HUP);
        rig.no_edge();
        assert_eq!(rig.ask("so_error"), 0);
        rig.not_closed();
        // Cannot be taken back.
        rig.tell(NONE);
        rig.shows(IN | OUT | RDHUP | HUP);
        rig.no_edge();
    }
}

#[test]
fn failed() {
    let all = IN | OUT | RDHUP | HUP;
    for before in [OUT, NONE, IN | OUT, IN, IN | OUT | RDHUP, IN | RDHUP, all] {
        let mut rig = Rig::new(before);
        rig.et();
        rig.tell(all | ERR);
        rig.becomes(all | ERR);
        rig.shows(all | ERR);
        rig.edge(all | ERR);
        rig.no_edge();
        assert_eq!(rig.ask("so_error"), Errno::ECONNRESET as u32);
        rig.shows(all);
        rig.tell(NONE);
        rig.shows(all);
        rig.not_closed();
    }
}

#[test]
fn an_error_that_can_be_cleared_shows_as_in() {
    let mut rig = Rig::new(OUT);
    rig.edge(OUT);
    rig.tell(OUT | ERR);
    rig.shows(IN | OUT);
    rig.edge(IN | OUT);
    rig.tell(OUT);
    rig.shows(OUT);
    rig.no_edge();
}

#[test]
fn the_last_close_is_told_once_in_every_state() {
    let states = [
        OUT,
        NONE,
        IN | OUT,
        IN,
        IN | PRI | OUT,
        IN | OUT | RDHUP,
        IN | RDHUP,
        IN | OUT | RDHUP | HUP,
        IN | OUT | RDHUP | HUP | ERR,
    ];
    for state in states {
        let mut rig = Rig::new(OUT);
        rig.tell(state);
        let duplicate = rig.user().try_clone().unwrap();
        drop(rig.user.take());
        rig.not_closed();
        rig.ask("close");
        rig.not_closed();
        drop(duplicate);
        rig.closed.recv_timeout(LONG).unwrap_or_else(|_| panic!("the close in state {state:?} was not told"));
        // What comes after finds nobody, and harms nobody.
        for events in [IN | PRI | OUT, IN | OUT | RDHUP, IN | OUT | RDHUP | HUP, IN | OUT | RDHUP | HUP | ERR]
        {
            if rig.readiness.set(events) {
                rig.readiness.notify();
            }
        }
        assert_eq!(rig.closed.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected), "told once");
    }
}

/// A port has to be free when the last close returns, also if the reactor saw the end first and is still at it.
#[test]
fn whoever_looks_after_the_last_close_finds_it_done() {
    let readiness = Readiness::new(OUT);
    let done = Arc::new(AtomicBool::new(false));
    let ((enter, entered), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let in_reactor = done.clone();
    let closed = move || {
        enter.send(()).unwrap();
        gone.recv().unwrap();
        // The other thread is about to look; with this it gets there first, unless it waits.
        std::thread::sleep(Duration::from_millis(20));
        in_reactor.store(true, Ordering::Release);
    };
    drop(readiness.make_signal_fd(Box::new(closed)).unwrap());
    entered.recv_timeout(LONG).unwrap();
    go.send(()).unwrap();
    readiness.check_closed();
    assert!(done.load(Ordering::Acquire));
}

#[test]
fn the_last_close_may_be_an_exit() {
    for state in [OUT, IN | OUT | RDHUP, IN | OUT | RDHUP | HUP | ERR] {
        let mut rig = Rig::new(state);
        drop(rig.user.take());
        rig.not_closed();
        rig.poller.end();
        rig.closed.recv_timeout(LONG).expect("the exit is told");
    }
}

#[test]
fn a_sleeping_poller_is_woken() {
    let mut rig = Rig::new(NONE);
    for (before, after, bit) in [
        (NONE, IN, IN),
        (NONE, OUT, OUT),
        (OUT, IN | PRI | OUT, PRI),
        (OUT, IN | OUT | RDHUP, RDHUP),
        (IN | RDHUP, IN | OUT | RDHUP | HUP, HUP),
    ] {
        rig.tell(before);
        rig.send(&format!("wait {}", bit.bits()));
        rig.tell(after);
        assert!(rig.answer().contains(bit));
    }
}

#[test]
fn one_descriptor_only() {
    let rig = Rig::new(OUT);
    assert_eq!(rig.readiness.make_signal_fd(Box::new(|| ())).unwrap_err(), Errno::EEXIST);
}

#[test]
fn the_descriptor_belongs_to_the_user() {
    let mut rig = Rig::new(OUT);
    assert_eq!(rig.ask("nonblock"), 0);
    // Blocking, and no call of ours waits.
    for events in [IN | OUT, NONE, NONE, OUT] {
        rig.tell(events);
        rig.settle();
    }
    let (alien, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"data").unwrap();
    rig.tell(IN | OUT);
    assert!(rig.readiness.set(NONE));
    rig.readiness.notify();
    // The number was closed and used again: nothing happens to the other file.
    rig.readiness.settle(alien.as_fd());
    alien.set_nonblocking(true).unwrap();
    peer.set_nonblocking(true).unwrap();
    assert_eq!(read_now(&alien), b"data");
    assert_eq!(read_now(&peer), b"");
    rig.shows(IN | OUT);
    // A duplicate is as good as the first.
    rig.readiness.settle(rig.user().try_clone().unwrap().as_fd());
    rig.shows(NONE);
}

#[test]
fn a_dropped_socket_shows_an_error() {
    let mut rig = Rig::new(OUT);
    rig.readiness = Arc::new(Readiness::new(NONE));
    rig.becomes(IN | OUT | RDHUP | HUP | ERR);
    rig.shows(IN | OUT | RDHUP | HUP | ERR);
    assert_eq!(rig.closed.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected), "dropped uncalled");
}

/// A stack and a user, each changing the state in threads of their own: what is shown at the end is what was set last.
#[test]
fn the_last_state_wins() {
    let mut rig = Rig::new(OUT);
    for round in 0..20 {
        std::thread::scope(|scope| {
            for thread in 0..3u32 {
                let (readiness, user) = (&rig.readiness, rig.user().as_fd());
                scope.spawn(move || {
                    let mut seed = round * 3 + thread + 1;
                    for _ in 0..200 {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let mut events = NONE;
                        events.set(IN, seed >> 16 & 1 != 0);
                        events.set(OUT, seed >> 17 & 1 != 0);
                        if readiness.set(events) {
                            readiness.notify();
                        }
                        if thread == 0 {
                            readiness.settle(user);
                        }
                    }
                    readiness.settle(user);
                });
            }
        });
        let events = rig.readiness.events();
        rig.shows(events);
    }
}

/// A socket with its signal fd, and a program that inherited it.
struct Rig {
    /// Ends first: it has the descriptor, too.
    poller: Poller,
    readiness: Arc<Readiness>,
    user: Option<OwnedFd>,
    closed: Receiver<()>,
}

impl Rig {
    fn new(initial: Events) -> Self {
        let readiness = Arc::new(Readiness::new(initial));
        let (tell, closed) = mpsc::channel();
        let user = readiness.make_signal_fd(Box::new(move || tell.send(()).unwrap())).unwrap();
        let poller = Poller::new(user.try_clone().unwrap());
        Rig { poller, readiness, user: Some(user), closed }
    }

    fn user(&self) -> &OwnedFd {
        self.user.as_ref().unwrap()
    }

    /// A call by descriptor in which the stack's state changed.
    fn tell(&self, events: Events) {
        if self.readiness.set(events) {
            self.readiness.notify();
        }
        self.settle();
    }

    fn settle(&self) {
        self.readiness.settle(self.user().as_fd());
    }

    #[track_caller]
    fn shows(&mut self, events: Events) {
        assert_eq!(self.events("poll"), events, "poll(2)");
        assert_eq!(self.events("epoll-lt"), events, "level-triggered epoll");
        // select(2): POLLIN_SET, POLLOUT_SET and POLLEX_SET of the kernel's fs/select.c.
        let mut sets = events & (IN | OUT | PRI);
        sets.set(IN, events.intersects(IN | HUP | ERR));
        sets.set(OUT, events.intersects(OUT | ERR));
        assert_eq!(self.events("select"), sets, "select(2)");
    }

    /// Closing takes effect late where another test is just starting its poller: for a moment that child has
    /// everything open that this process has.
    #[track_caller]
    fn becomes(&mut self, events: Events) {
        let deadline = Instant::now() + LONG;
        while self.events("poll") != events {
            assert!(Instant::now() < deadline, "{events:?} is not shown");
            std::thread::yield_now();
        }
    }

    #[track_caller]
    fn edge(&mut self, events: Events) {
        assert_eq!(self.et(), events, "edge-triggered epoll");
    }

    #[track_caller]
    fn no_edge(&mut self) {
        self.edge(NONE);
    }

    fn et(&mut self) -> Events {
        self.events("epoll-et")
    }

    #[track_caller]
    fn not_closed(&self) {
        // What was ready before a job was deferred has been dispatched once a second job has run.
        for _ in 0..2 {
            let (done, finished) = mpsc::channel();
            Reactor::global().defer(Box::new(move || done.send(()).unwrap()));
            finished.recv_timeout(LONG).unwrap();
        }
        assert_eq!(self.closed.try_recv(), Err(TryRecvError::Empty), "somebody still has it open");
    }

    fn events(&mut self, command: &str) -> Events {
        Events::from_bits_retain(self.poller.ask(command))
    }

    fn ask(&mut self, command: &str) -> u32 {
        self.events(command).bits()
    }

    fn send(&mut self, command: &str) {
        self.poller.send(command);
    }

    fn answer(&mut self) -> Events {
        Events::from_bits_retain(self.poller.answer())
    }
}

fn read_now(mut stream: &UnixStream) -> Vec<u8> {
    let mut data = [0; 16];
    let n = std::io::Read::read(&mut stream, &mut data).unwrap_or(0);
    data[..n].to_vec()
}
