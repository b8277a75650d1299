//! What the driver promises, where threads meet.

mod chaos;

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use ioth_core::{Cidr, Domain, MsgFlags, RecvMsg, SendMsg, Shutdown, SockAddr, Socket, SocketType};
use ioth_vde::{Batch, Counters, Lan, Properties, Receiver, lan};

use super::*;
use crate::engine::addr::AddrAttrs;
use crate::socket::NodeSocket;

const PATIENCE: Duration = Duration::from_secs(20);
const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 255);

/// A node with 10.0.0.`host`/8 on its first link, 10.1.0.`host`/16 on its second.
fn node(host: u8, links: Vec<Arc<dyn Link>>) -> Arc<Node> {
    let links = links.into_iter().enumerate();
    let links = links.map(|(at, link)| (None, link, MacAddr::local([0, 0, 0, 0, at as u8, host]))).collect();
    let node = Node::new([host; 32], links).unwrap();
    node.call(|engine| {
        for (at, ifindex) in [2, 3].into_iter().enumerate() {
            let tables = engine.tables_mut();
            if tables.set_up(ifindex, true).is_err() {
                continue;
            }
            let (addr, prefix) = if at == 0 { ([10, 0, 0, host], 8) } else { ([172, 16, 0, host], 16) };
            tables.add_addr(ifindex, Cidr::new(addr, prefix).unwrap(), AddrAttrs::default()).unwrap();
        }
    });
    node
}

fn socket(node: &Arc<Node>, kind: SocketType) -> Arc<dyn Socket> {
    let (id, readiness) = node.open(|engine| engine.socket(Domain::INET, kind, 0)).unwrap();
    Arc::new(NodeSocket::new(node.clone(), id, readiness, kind))
}

fn at(ip: impl Into<Ipv4Addr>, port: u16) -> SockAddr {
    SockAddr::Ip(SocketAddr::new(ip.into().into(), port))
}

/// A socket that sends to everybody on the first link, and asks nobody for an address.
fn broadcaster(node: &Arc<Node>) -> Arc<dyn Socket> {
    let socket = socket(node, SocketType::DGRAM);
    socket.set_option(libc::SOL_SOCKET, libc::SO_BROADCAST, &1i32.to_ne_bytes()).unwrap();
    socket.connect(&at(BROADCAST, 9)).unwrap();
    socket
}

fn timeout(socket: &dyn Socket, name: i32, timeout: Duration) {
    let mut timeval = (timeout.as_secs() as i64).to_ne_bytes().to_vec();
    timeval.extend(i64::from(timeout.subsec_micros()).to_ne_bytes());
    socket.set_option(libc::SOL_SOCKET, name, &timeval).unwrap();
}

fn send(socket: &dyn Socket, data: &[u8], flags: MsgFlags) -> Result<usize> {
    socket.send(&SendMsg::new(&[IoSlice::new(data)]), flags)
}

fn recv(socket: &dyn Socket, data: &mut [u8], flags: MsgFlags) -> Result<usize> {
    socket.recv(&mut RecvMsg::new(&mut [IoSliceMut::new(data)]), flags)
}

/// Waits for a condition that other threads bring about.
#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::yield_now();
    }
}

/// Runs `f` in a thread of its own, and does not wait for ever.
fn go<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> impl FnOnce(&str) -> R {
    let (done, result) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(f()));
    move |what| result.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("hangs: {what}"))
}

/// A link with as much room as it is given, to nobody.
#[derive(Default)]
struct Gate {
    receiver: Mutex<Option<Arc<dyn Receiver>>>,
    room: AtomicUsize,
    taken: AtomicUsize,
    gone: AtomicBool,
    /// It leaves the process.
    outward: AtomicBool,
    /// Called for each send.
    hook: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    filters: Mutex<Vec<Filter>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    fn new(room: usize) -> Arc<Gate> {
        Arc::new(Gate { room: AtomicUsize::new(room), ..Gate::default() })
    }

    fn receiver(&self) -> Arc<dyn Receiver> {
        self.receiver.lock().clone().unwrap()
    }

    fn give_room(&self, room: usize) {
        self.room.fetch_add(room, Ordering::SeqCst);
        self.receiver().writable();
    }
}

impl Link for Gate {
    fn properties(&self) -> Properties {
        Properties { mtu: 1500, gso_max: 0, trusted: !self.outward.load(Ordering::SeqCst) }
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> std::result::Result<(), LinkError> {
        *self.receiver.lock() = Some(receiver);
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> std::result::Result<(), LinkError> {
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            hook();
        }
        if self.gone.load(Ordering::SeqCst) {
            frames.clear();
            return Err(LinkError::Detached);
        }
        while !frames.is_empty()
            && self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1)).is_ok()
        {
            // What the node says to groups, in a time of its own, is no socket's.
            if frames.pop_front().is_some_and(|frame| frame.starts_with(&[0xFF; 6])) {
                self.taken.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn set_filter(&self, filter: &Filter) {
        self.filters.lock().push(filter.clone());
    }

    fn detach(&self) {
        self.receiver.lock().take();
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Sends until there is no room: how many went.
fn fill(socket: &dyn Socket) -> usize {
    (0..100_000)
        .find(|_| send(socket, b"x", MsgFlags::DONTWAIT) == Err(Errno::EAGAIN))
        .expect("the node takes frames without end, though nobody sends them")
}

#[test]
fn a_blocked_link_holds_senders_back_until_it_takes_more() {
    let gate = Gate::new(3);
    let node = node(1, vec![gate.clone()]);
    let socket = broadcaster(&node);
    let before = gate.taken.load(Ordering::SeqCst);
    // What found room, and what was taken before the engine heard that there is none.
    assert!(fill(&*socket) <= 8);
    assert!(!socket.events().contains(Events::OUT));
    let blocked = socket.clone();
    let sender = go(move || send(&*blocked, b"y", MsgFlags::empty()));
    gate.give_room(usize::MAX / 2);
    assert_eq!(sender("a sender, though the link takes frames again"), Ok(1));
    assert!(node.ports()[0].is_idle());
    assert!(gate.taken.load(Ordering::SeqCst) > before);
}

#[test]
fn what_one_round_of_the_reactor_sends_goes_out_together() {
    let gate = Gate::new(usize::MAX / 2);
    gate.outward.store(true, Ordering::SeqCst);
    let node = node(1, vec![gate.clone()]);
    let socket = broadcaster(&node);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    *gate.hook.lock() = Some(Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let go = |sends: usize| {
        calls.store(0, Ordering::SeqCst);
        gate.taken.store(0, Ordering::SeqCst);
        let socket = socket.clone();
        Reactor::global().defer(Box::new(move || {
            for _ in 0..sends {
                assert_eq!(send(&*socket, b"x", MsgFlags::DONTWAIT), Ok(1));
            }
        }));
        until("all of them go", || gate.taken.load(Ordering::SeqCst) == sends);
        calls.load(Ordering::SeqCst)
    };
    assert_eq!(go(1), 1);
    assert_eq!(go(7), 1);
    // What is worth a system call does not wait for more.
    assert_eq!(go(8 + 2), 2);
    assert_eq!(go(100), 100 / 8 + 1);
    // Another thread's call sends what it has at once.
    gate.taken.store(0, Ordering::SeqCst);
    send(&*socket, b"x", MsgFlags::DONTWAIT).unwrap();
    assert_eq!(gate.taken.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_node_sent_goes_out_though_the_node_goes_in_that_round() {
    let gate = Gate::new(usize::MAX / 2);
    gate.outward.store(true, Ordering::SeqCst);
    let node = node(1, vec![gate.clone()]);
    let socket = broadcaster(&node);
    Reactor::global().defer(Box::new(move || {
        assert_eq!(send(&*socket, b"x", MsgFlags::DONTWAIT), Ok(1));
        drop(socket);
        drop(node);
    }));
    until("the last frame goes", || gate.taken.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_link_that_goes_while_it_is_blocked_lets_its_senders_go() {
    let gate = Gate::new(0);
    let node = node(1, vec![gate.clone()]);
    let socket = broadcaster(&node);
    fill(&*socket);
    let blocked = socket.clone();
    let sender = go(move || send(&*blocked, b"y", MsgFlags::empty()));
    gate.gone.store(true, Ordering::SeqCst);
    gate.receiver().down(LinkError::Gone("gate".to_owned()));
    let _ = sender("a sender on a link that is gone");
    assert!(node.ports()[0].is_idle());
}

#[test]
fn a_slow_drainer_holds_other_senders_back() {
    let gate = Gate::new(usize::MAX / 2);
    let node = node(1, vec![gate.clone()]);
    let (socket, other) = (broadcaster(&node), broadcaster(&node));
    let (inside, outside) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let once = AtomicBool::new(true);
    let (entered, leaves) = (inside.clone(), outside.clone());
    *gate.hook.lock() = Some(Arc::new(move || {
        if once.swap(false, Ordering::SeqCst) {
            entered.wait();
            leaves.wait();
        }
    }));
    let drainer = go(move || send(&*socket, b"x", MsgFlags::empty()));
    inside.wait();
    // Bounded, though a thread is at it and the link has room.
    assert!(fill(&*other) <= 2 * lane::LIMIT);
    let blocked = other.clone();
    let sender = go(move || send(&*blocked, b"y", MsgFlags::empty()));
    outside.wait();
    assert_eq!(drainer("the drainer"), Ok(1));
    assert_eq!(sender("a sender that waited for the drainer"), Ok(1));
    until("nothing waits", || node.ports()[0].is_idle());
}

#[test]
fn a_call_returns_though_others_keep_on_sending() {
    let gate = Gate::new(usize::MAX / 2);
    let node = node(1, vec![gate.clone()]);
    let (socket, other) = (broadcaster(&node), broadcaster(&node));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    // For each batch that goes there is another one: a link may be used from within its own send.
    *gate.hook.lock() = Some(Arc::new(move || {
        if !stopped.load(Ordering::SeqCst) {
            let _ = send(&*other, b"more", MsgFlags::DONTWAIT);
        }
    }));
    let caller = go(move || send(&*socket, b"x", MsgFlags::empty()));
    let returned = caller("a call that works for others without end");
    let sent = gate.taken.load(Ordering::SeqCst);
    until("the reactor goes on", || gate.taken.load(Ordering::SeqCst) > sent + 100);
    stop.store(true, Ordering::SeqCst);
    // What it holds sends a last time when it goes: not with the lock held.
    let hook = gate.hook.lock().take();
    drop(hook);
    assert_eq!(returned, Ok(1));
    until("nothing waits", || node.ports()[0].is_idle());
}

#[test]
fn a_blocked_link_does_not_stall_the_other_one() {
    let properties = Properties { mtu: 300, gso_max: 0, trusted: true };
    let lan = Lan::with(lan::Config { properties, ..lan::Config::default() });
    let gate = Gate::new(0);
    let here = node(1, vec![gate.clone(), lan.port()]);
    let there = node(2, vec![Gate::new(0), lan.port()]);
    fill(&*broadcaster(&here));
    let stalled = broadcaster(&here);
    assert_eq!(send(&*stalled, b"x", MsgFlags::DONTWAIT), Err(Errno::EAGAIN));
    let listener = socket(&there, SocketType::STREAM);
    listener.bind(&at([172, 16, 0, 2], 7)).unwrap();
    listener.listen(1).unwrap();
    // With segments of 260 bytes a window is more frames than an engine may hold back.
    const LEN: usize = 2_000_000;
    let client = socket(&here, SocketType::STREAM);
    let sender = go(move || {
        client.connect(&at([172, 16, 0, 2], 7))?;
        send(&*client, &vec![7; LEN], MsgFlags::empty())
    });
    let (server, _) = listener.accept().unwrap();
    timeout(&*server, libc::SO_RCVTIMEO, PATIENCE);
    let mut data = vec![0; LEN];
    assert_eq!(recv(&*server, &mut data, MsgFlags::WAITALL), Ok(LEN));
    assert_eq!(sender("a sender on a link that takes everything"), Ok(LEN));
}

#[test]
fn whoever_gives_the_lock_back_looks_into_the_inbox() {
    let gate = Gate::new(usize::MAX / 2);
    let node = node(1, vec![gate.clone()]);
    let frames = || (0..200).map(|_| Frame::copy_of(&[0xff; 60])).collect::<Batch>();
    // Every way out of a call that ends early holds the lock like this.
    let locked = node.lock();
    let receiver = gate.receiver();
    go(move || receiver.receive(&mut frames()))("a bringer, though it must not wait for the lock");
    assert_eq!(node.desk.len(), 200);
    drop(locked);
    assert!(node.desk.is_empty());
    // And a spinner that ends.
    node.desk.watch();
    gate.receiver().receive(&mut frames());
    assert_eq!(node.desk.len(), 200);
    assert!(node.desk.unwatch());
    node.run();
    assert!(node.desk.is_empty());
}

#[test]
fn calls_that_wait_end_when_another_thread_closes_the_socket() {
    let node = node(1, vec![Gate::new(0)]);
    let listener = socket(&node, SocketType::STREAM);
    listener.bind(&at([10, 0, 0, 1], 7)).unwrap();
    listener.listen(1).unwrap();
    let datagrams = socket(&node, SocketType::DGRAM);
    let sender = broadcaster(&node);
    fill(&*sender);
    let connecting = socket(&node, SocketType::STREAM);
    let callers: [fn(&dyn Socket) -> Result<usize>; 4] = [
        |listener| listener.accept().map(|_| 0),
        |datagrams| recv(datagrams, &mut [0], MsgFlags::empty()),
        |sender| send(sender, b"x", MsgFlags::empty()),
        |connecting| connecting.connect(&at([10, 0, 0, 99], 7)).map(|()| 0),
    ];
    let waiters = [listener, datagrams, sender, connecting].into_iter().zip(callers).map(|(socket, call)| {
        let called = socket.clone();
        (socket, go(move || call(&*called)))
    });
    let waiters: Vec<_> = waiters.collect();
    until_awaited(&node, 4);
    for (socket, waiter) in waiters {
        socket.close().unwrap();
        assert_eq!(waiter("a call on a closed socket"), Err(Errno::EBADF));
        assert_eq!(socket.events(), CLOSED);
    }
    assert_eq!(node.users.load(Ordering::SeqCst), 0);
}

/// Waits until calls sleep on that many sockets.
#[track_caller]
fn until_awaited(node: &Node, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let awaited = || {
        let core = node.desk.lock();
        core.sockets.iter().flatten().filter(|readiness| readiness.is_awaited()).count()
    };
    while awaited() < count {
        assert!(Instant::now() < deadline, "{} of {count} calls wait", awaited());
        thread::yield_now();
    }
}

#[test]
fn shutdown_by_another_thread_ends_waiting() {
    let node = node(1, vec![]);
    let local = Ipv4Addr::LOCALHOST;
    let listener = socket(&node, SocketType::STREAM);
    listener.bind(&at(local, 7)).unwrap();
    listener.listen(1).unwrap();
    let client = socket(&node, SocketType::STREAM);
    client.connect(&at(local, 7)).unwrap();
    let reader = client.clone();
    let reader = go(move || recv(&*reader, &mut [0], MsgFlags::empty()));
    let (_server, _) = listener.accept().unwrap();
    let acceptor = listener.clone();
    let acceptor = go(move || acceptor.accept().map(|_| ()));
    until_awaited(&node, 2);
    client.shutdown(Shutdown::Read).unwrap();
    assert_eq!(reader("a reader after shutdown"), Ok(0));
    // inet_csk_accept(): a socket that does not listen any more.
    listener.shutdown(Shutdown::Read).unwrap();
    assert_eq!(acceptor("accept after shutdown"), Err(Errno::EINVAL));
}

#[test]
fn two_threads_wait_on_one_socket() {
    let node = node(1, vec![]);
    let local = Ipv4Addr::LOCALHOST;
    let receiver = socket(&node, SocketType::DGRAM);
    receiver.bind(&at(local, 9)).unwrap();
    let sender = socket(&node, SocketType::DGRAM);
    sender.connect(&at(local, 9)).unwrap();
    for _ in 0..200 {
        let waiters = [0; 2].map(|_| {
            let receiver = receiver.clone();
            go(move || recv(&*receiver, &mut [0], MsgFlags::empty()))
        });
        send(&*sender, b"1", MsgFlags::empty()).unwrap();
        send(&*sender, b"2", MsgFlags::empty()).unwrap();
        for waiter in waiters {
            assert_eq!(waiter("one of two receivers"), Ok(1));
        }
    }
}

#[test]
fn an_error_after_a_part_is_the_next_calls() {
    let node = node(1, vec![]);
    let local = Ipv4Addr::LOCALHOST;
    let listener = socket(&node, SocketType::STREAM);
    listener.bind(&at(local, 7)).unwrap();
    listener.listen(1).unwrap();
    let client = socket(&node, SocketType::STREAM);
    client.connect(&at(local, 7)).unwrap();
    let (server, _) = listener.accept().unwrap();
    send(&*server, b"abc", MsgFlags::empty()).unwrap();
    let mut linger = 1i32.to_ne_bytes().to_vec();
    linger.extend(0i32.to_ne_bytes());
    server.set_option(libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    server.close().unwrap();
    let mut data = [0; 10];
    assert_eq!(recv(&*client, &mut data, MsgFlags::WAITALL), Ok(3));
    assert_eq!(recv(&*client, &mut data, MsgFlags::WAITALL), Err(Errno::ECONNRESET));
    assert_eq!(recv(&*client, &mut data, MsgFlags::WAITALL), Ok(0));
}

#[test]
fn the_earlier_of_two_deadlines_holds_whoever_comes_last() {
    let node = node(1, vec![]);
    for _ in 0..300 {
        let now = node.now().total_micros();
        let (late, soon) = (now + 3_600_000_000, now + 2_000);
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            for micros in [late, soon] {
                let (node, barrier) = (&node, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    node.arm(engine::Instant::from_micros(micros));
                });
            }
        });
        until("the timer fires", || node.armed.load(Ordering::SeqCst) != soon);
        // Take the late one back.
        let timer = node.timer.lock();
        node.armed.store(UNARMED, Ordering::SeqCst);
        timer.as_ref().unwrap().clear();
    }
}

#[test]
fn an_older_filter_does_not_replace_a_newer_one() {
    let gate = Gate::new(0);
    let node = node(1, vec![gate.clone()]);
    let filter = |promiscuous| Filter { promiscuous, ..Filter::default() };
    gate.filters.lock().clear();
    node.ports()[0].set_filter(1000, &filter(true));
    node.ports()[0].set_filter(999, &filter(false));
    assert_eq!(*gate.filters.lock(), [filter(true)]);
}

#[test]
fn a_link_is_told_of_another_ethernet_address() {
    let gate = Gate::new(0);
    let node = node(1, vec![gate.clone()]);
    let mac = MacAddr::local([9; 6]);
    node.call(|engine| engine.tables_mut().set_mac(2, mac).unwrap());
    assert_eq!(gate.filters.lock().last().unwrap().unicast, [mac]);
}

#[test]
fn a_thread_that_ends_may_drop_a_socket() {
    thread_local! {
        static KEPT: RefCell<Option<Arc<dyn Socket>>> = const { RefCell::new(None) };
    }
    let lan = Lan::new();
    let (here, there) = (node(1, vec![lan.port()]), node(2, vec![lan.port()]));
    let listener = socket(&there, SocketType::STREAM);
    listener.bind(&at([10, 0, 0, 2], 7)).unwrap();
    listener.listen(1).unwrap();
    let client = socket(&here, SocketType::STREAM);
    thread::spawn(move || {
        // First: it is dropped last, when the thread's run queue is gone, and then it sends its FIN.
        KEPT.set(Some(client.clone()));
        client.connect(&at([10, 0, 0, 2], 7)).unwrap();
    })
    .join()
    .unwrap();
    let (server, _) = listener.accept().unwrap();
    timeout(&*server, libc::SO_RCVTIMEO, PATIENCE);
    assert_eq!(recv(&*server, &mut [0], MsgFlags::empty()), Ok(0));
}

#[test]
fn a_descriptor_keeps_its_node_alive_and_no_longer() {
    let node = node(1, vec![Gate::new(0)]);
    let weak = Arc::downgrade(&node);
    let released = socket(&node, SocketType::DGRAM);
    let fd = released.release_fd().unwrap();
    drop((node, released));
    assert!(weak.upgrade().is_some());
    drop(fd);
    until("the node goes with the descriptor", || weak.upgrade().is_none());
}

/// A waker may call into the node that wakes it: no lock is held, and it is not nested without end.
#[test]
fn a_waker_may_call_its_own_node() {
    struct Echo {
        socket: Arc<dyn Socket>,
        answers: AtomicUsize,
    }

    impl std::task::Wake for Echo {
        fn wake(self: Arc<Self>) {
            let mut data = [0; 10];
            while recv(&*self.socket, &mut data, MsgFlags::DONTWAIT).is_ok() {
                self.answers.fetch_add(1, Ordering::SeqCst);
                let _ = send(&*self.socket, b"again", MsgFlags::DONTWAIT);
            }
            if self.answers.load(Ordering::SeqCst) < 1000 {
                let _ = self.socket.poll_ready(Events::IN, &self.clone().into());
            }
        }
    }

    let node = node(1, vec![]);
    let [one, two] = [9, 10].map(|port| {
        let socket = socket(&node, SocketType::DGRAM);
        socket.bind(&at(Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.connect(&at(Ipv4Addr::LOCALHOST, 19 - port)).unwrap();
        socket
    });
    let echo = Arc::new(Echo { socket: one, answers: AtomicUsize::new(0) });
    assert!(echo.socket.poll_ready(Events::IN, &echo.clone().into()).is_pending());
    timeout(&*two, libc::SO_RCVTIMEO, PATIENCE);
    for _ in 0..100 {
        send(&*two, b"ask", MsgFlags::empty()).unwrap();
        assert_eq!(recv(&*two, &mut [0; 10], MsgFlags::empty()), Ok(5));
    }
    assert_eq!(echo.answers.load(Ordering::SeqCst), 100);
}
