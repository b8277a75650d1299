//! Everything at once: threads that call, close and end nodes as they like, on a good LAN and a bad one.

use std::sync::mpsc;

use ioth_core::spin::Spinner;
use ioth_vde::fault::{self, FaultLink};

use super::*;

const THREADS: u64 = 12;
const DURATION: Duration = Duration::from_secs(3);
/// Sockets that any thread may take and use.
const SHARED: usize = 16;
const ECHO: u16 = 7;
const DATAGRAMS: std::ops::Range<u16> = 5000..5008;

struct World {
    lan: Arc<Lan>,
    nodes: Vec<Arc<Node>>,
    shared: Vec<Mutex<Option<Arc<dyn Socket>>>>,
    end: Instant,
    /// Nodes that lived for a moment.
    short: Mutex<Vec<Weak<Node>>>,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

fn bad(lan: &Arc<Lan>, seed: u64) -> Arc<dyn Link> {
    let config = fault::Config {
        loss: 0.03,
        duplicate: 0.02,
        reorder: 0.05,
        delay: Duration::from_micros(200),
        seed,
        ..fault::Config::default()
    };
    Arc::new(FaultLink::new(lan.port(), config.clone(), config).unwrap())
}

impl World {
    fn new() -> World {
        let lan = Lan::new();
        let good = (1..=3).map(|host| node(host, vec![lan.port()]));
        let bad = (4..=5).map(|host| node(host, vec![bad(&lan, host.into())]));
        World {
            nodes: good.chain(bad).collect(),
            lan,
            shared: (0..SHARED).map(|_| Mutex::new(None)).collect(),
            end: Instant::now() + DURATION,
            short: Mutex::default(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Accepts, answers once, and lets go.
    fn serve(&self, node: &Arc<Node>) {
        let listener = socket(node, SocketType::STREAM);
        listener.bind(&at([0, 0, 0, 0], ECHO)).unwrap();
        listener.listen(16).unwrap();
        timeout(&*listener, libc::SO_RCVTIMEO, Duration::from_millis(50));
        while !self.is_over() {
            let Ok((server, _)) = listener.accept() else { continue };
            timeout(&*server, libc::SO_RCVTIMEO, Duration::from_millis(5));
            timeout(&*server, libc::SO_SNDTIMEO, Duration::from_millis(5));
            let mut data = [0; 4096];
            if let Ok(n) = recv(&*server, &mut data, MsgFlags::empty()) {
                let _ = send(&*server, &data[..n], MsgFlags::empty());
            }
        }
    }

    /// Calls whatever comes up, until the end.
    fn play(&self, seed: u64) -> u64 {
        let mut dice = Dice(seed);
        let mut rounds = 0;
        while !self.is_over() {
            rounds += 1;
            match dice.below(20) {
                0..4 => self.datagrams(&mut dice),
                4..10 => self.stream(&mut dice),
                10..18 => {
                    // Somebody else may be using or closing it.
                    let shared = dice.of(&self.shared).lock().clone();
                    if let Some(socket) = shared {
                        self.use_once(&*socket, &mut dice);
                    }
                }
                18 => self.short_life(&mut dice),
                // With sockets open, which here are always some, a node goes on.
                _ => assert_eq!(dice.of(&self.nodes).delete(), Err(Errno::EBUSY)),
            }
        }
        rounds
    }

    fn fresh(&self, kind: SocketType, dice: &mut Dice) -> Arc<dyn Socket> {
        let socket = socket(dice.of(&self.nodes), kind);
        for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            timeout(&*socket, name, Duration::from_micros(500 + dice.below(10_000)));
        }
        socket
    }

    fn anybody(&self, port: u16, dice: &mut Dice) -> SockAddr {
        at([10, 0, 0, 1 + dice.below(6) as u8], port)
    }

    fn datagrams(&self, dice: &mut Dice) {
        let socket = self.fresh(SocketType::DGRAM, dice);
        let port = DATAGRAMS.start + dice.below(DATAGRAMS.len() as u64) as u16;
        let _ = socket.bind(&at([0, 0, 0, 0], port));
        let _ = socket.connect(&self.anybody(port, dice));
        for _ in 0..dice.below(40) {
            let _ = send(&*socket, &[0; 1000], MsgFlags::empty());
        }
        self.let_go(socket, dice);
    }

    fn stream(&self, dice: &mut Dice) {
        let socket = self.fresh(SocketType::STREAM, dice);
        let _ = socket.connect(&self.anybody(ECHO, dice));
        let len = dice.below(100_000) as usize;
        let _ = send(&*socket, &vec![1; len], MsgFlags::empty());
        self.let_go(socket, dice);
    }

    fn use_once(&self, socket: &dyn Socket, dice: &mut Dice) {
        let mut data = [0; 4096];
        match dice.below(8) {
            0 => _ = recv(socket, &mut data, MsgFlags::WAITALL),
            1 => _ = recv(socket, &mut data, MsgFlags::PEEK),
            2 => _ = recv(socket, &mut data, MsgFlags::empty()),
            3 => _ = send(socket, &data, MsgFlags::empty()),
            4 => _ = send(socket, &data, MsgFlags::DONTWAIT),
            5 => {
                let how = *dice.of(&[Shutdown::Read, Shutdown::Write, Shutdown::Both]);
                let _ = socket.shutdown(how);
            }
            6 => _ = socket.connect(&self.anybody(ECHO, dice)),
            _ => socket.close().unwrap(),
        }
    }

    /// A socket goes in one of the ways in which sockets go.
    fn let_go(&self, socket: Arc<dyn Socket>, dice: &mut Dice) {
        self.use_once(&*socket, dice);
        match dice.below(4) {
            0 => socket.close().unwrap(),
            1 => {
                let fd = socket.release_fd().unwrap();
                drop(socket);
                drop(fd);
            }
            2 => {
                let old = dice.of(&self.shared).lock().replace(socket);
                drop(old);
            }
            _ => drop(socket),
        }
    }

    /// A node comes, is heard by all, and goes with or without its sockets.
    fn short_life(&self, dice: &mut Dice) {
        let host = 100 + dice.below(100) as u8;
        let link = if dice.below(2) == 0 { bad(&self.lan, dice.0) } else { self.lan.port() };
        let node = node(host, vec![link]);
        self.short.lock().push(Arc::downgrade(&node));
        let _ = send(&*broadcaster(&node), &[0; 500], MsgFlags::DONTWAIT);
        let client = socket(&node, SocketType::STREAM);
        timeout(&*client, libc::SO_SNDTIMEO, Duration::from_millis(2));
        let _ = client.connect(&self.anybody(ECHO, dice));
        if dice.below(2) == 0 {
            drop(client);
            node.delete().unwrap();
        }
    }
}

#[test]
fn every_thread_returns_and_nothing_is_left() {
    let world = Arc::new(World::new());
    // From the first call to the last: a node without sockets could be deleted.
    let kept: Vec<_> = world.nodes.iter().map(|node| socket(node, SocketType::STREAM)).collect();
    let (done, returned) = mpsc::channel();
    for at in 0..world.nodes.len() {
        let (world, done) = (world.clone(), done.clone());
        thread::spawn(move || {
            world.serve(&world.nodes[at]);
            drop(world);
            let _ = done.send(0);
        });
    }
    for seed in 0..THREADS {
        let (world, done) = (world.clone(), done.clone());
        thread::spawn(move || {
            let rounds = world.play(seed);
            drop(world);
            let _ = done.send(rounds);
        });
    }
    drop(done);
    let mut rounds = 0;
    for _ in 0..world.nodes.len() as u64 + THREADS {
        // A thread that panicked shows as a missing one, too.
        rounds += returned.recv_timeout(DURATION + PATIENCE).expect("a thread hangs or has panicked");
    }
    assert!(rounds > THREADS, "{rounds} rounds");
    drop(kept);
    let world = Arc::into_inner(world).expect("every thread has let go of the world");
    drop(world.shared);
    for node in &world.nodes {
        until("inbox and lane are empty", || node.desk.is_empty() && node.ports()[0].is_idle());
        until("no socket is left", || node.users.load(Ordering::SeqCst) == 0);
    }
    let nodes: Vec<_> = world.nodes.iter().map(Arc::downgrade).collect();
    drop(world.nodes);
    for weak in nodes.iter().chain(&*world.short.lock()) {
        until("the node is gone", || weak.strong_count() == 0);
    }
    until("nobody spins", || Spinner::count() == 0);
}
