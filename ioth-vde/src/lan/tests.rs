use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::OnceLock;

use ioth_core::MacAddr;

use super::table::{LEARNED_AGE, LEARNED_MAX};
use super::*;
use crate::{Batch, Checksum, Filter, Frame, Receiver};

/// Keeps what it gets; may answer from within.
#[derive(Debug, Default)]
struct Sink {
    batches: Mutex<Vec<Vec<Vec<u8>>>>,
    frames: Mutex<Vec<(Checksum, Option<NonZeroU16>)>>,
    echo: OnceLock<std::sync::Weak<Port>>,
}

impl Receiver for Sink {
    fn receive(&self, frames: &mut Batch) {
        self.batches.lock().push(frames.iter().map(|frame| frame.to_vec()).collect());
        self.frames.lock().extend(frames.iter().map(|frame| (frame.checksum, frame.gso_size)));
        let Some(port) = self.echo.get().and_then(std::sync::Weak::upgrade) else {
            return frames.clear();
        };
        for frame in frames.iter_mut() {
            let (to, from) = frame.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
        }
        port.send(frames).unwrap();
    }

    fn writable(&self) {}

    fn down(&self, cause: LinkError) {
        panic!("a LAN never goes down: {cause}");
    }
}

impl Sink {
    fn take(&self) -> Vec<Vec<u8>> {
        self.batches.lock().drain(..).flatten().collect()
    }
}

struct Node {
    port: Arc<Port>,
    sink: Arc<Sink>,
}

impl Node {
    fn open(lan: &Arc<Lan>) -> Self {
        let node = Node { port: lan.port(), sink: Arc::default() };
        node.port.attach(node.sink.clone()).unwrap();
        node
    }

    fn declared(lan: &Arc<Lan>, mac: u8, groups: &[MacAddr]) -> Self {
        let node = Node::open(lan);
        node.port.set_filter(&Filter {
            unicast: vec![addr(mac)],
            groups: groups.to_vec(),
            promiscuous: false,
        });
        node
    }

    fn send(&self, frames: &[Vec<u8>]) {
        let mut batch: Batch = frames.iter().map(|bytes| Frame::copy_of(bytes)).collect();
        self.port.send(&mut batch).unwrap();
        assert!(batch.is_empty());
    }
}

fn addr(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

const GROUP: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn frame(to: MacAddr, from: MacAddr, payload: u8) -> Vec<u8> {
    [&to.0[..], &from.0, &[0x08, 0x00, payload]].concat()
}

#[test]
fn declared_ports_get_theirs() {
    let lan = Lan::new();
    let [a, b] = [1, 2].map(|n| Node::declared(&lan, n, &[]));
    let c = Node::declared(&lan, 3, &[GROUP]);
    a.send(&[frame(addr(2), addr(1), 0)]);
    a.send(&[frame(GROUP, addr(1), 1), frame(MacAddr::BROADCAST, addr(1), 2)]);
    a.send(&[frame(addr(9), addr(1), 3), frame(addr(1), addr(1), 4)]);
    assert_eq!(b.sink.take(), [frame(addr(2), addr(1), 0), frame(MacAddr::BROADCAST, addr(1), 2)]);
    assert_eq!(c.sink.take(), [frame(GROUP, addr(1), 1), frame(MacAddr::BROADCAST, addr(1), 2)]);
    assert!(a.sink.take().is_empty());

    // Filters change: nothing of what was looked up before may survive.
    b.port.set_filter(&Filter { unicast: vec![addr(5)], groups: vec![GROUP], promiscuous: false });
    a.send(&[frame(addr(2), addr(1), 5)]);
    a.send(&[frame(addr(5), addr(1), 6)]);
    a.send(&[frame(GROUP, addr(1), 7)]);
    assert_eq!(b.sink.take(), [frame(addr(5), addr(1), 6), frame(GROUP, addr(1), 7)]);
    let counters = a.port.counters();
    assert_eq!((counters.tx_frames, counters.tx_bytes, counters.rx_frames), (8, 8 * 15, 0));
    assert_eq!(b.port.counters().rx_frames, 4);
}

#[test]
fn mixed_batches_arrive_once_and_in_order() {
    let lan = Lan::new();
    let [a, b, c] = [1, 2, 3].map(|n| Node::declared(&lan, n, &[]));
    a.send(&(0..9).map(|n| frame(addr(2 + n % 2), addr(1), n)).collect::<Vec<_>>());
    assert_eq!(b.sink.batches.lock().len(), 1);
    assert_eq!(b.sink.take(), [0, 2, 4, 6, 8].map(|n| frame(addr(2), addr(1), n)));
    assert_eq!(c.sink.take(), [1, 3, 5, 7].map(|n| frame(addr(3), addr(1), n)));
}

#[test]
fn open_ports_are_learned() {
    let lan = Lan::new();
    let [a, b, c] = [(); 3].map(|()| Node::open(&lan));
    let d = Node::declared(&lan, 4, &[]);
    a.send(&[frame(addr(2), addr(1), 0)]);
    assert_eq!((b.sink.take().len(), c.sink.take().len(), d.sink.take().len()), (1, 1, 0));
    b.send(&[frame(addr(1), addr(2), 1)]);
    a.send(&[frame(addr(2), addr(1), 2)]);
    assert_eq!((a.sink.take().len(), b.sink.take().len(), c.sink.take().len()), (1, 1, 0));
    // A station moves.
    c.send(&[frame(addr(1), addr(2), 3)]);
    a.send(&[frame(addr(2), addr(1), 4)]);
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (0, 1));
    // And comes back at once, though its port has just been learned.
    b.send(&[frame(addr(1), addr(2), 5)]);
    a.send(&[frame(addr(2), addr(1), 6)]);
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (1, 0));
    // A declared address cannot be learned away.
    b.send(&[frame(addr(1), addr(4), 7)]);
    a.send(&[frame(addr(4), addr(1), 8)]);
    assert_eq!((b.sink.take().len(), d.sink.take().len()), (0, 1));
    // A port that leaves takes its stations along.
    b.port.detach();
    a.send(&[frame(addr(2), addr(1), 9)]);
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (0, 1));
    assert_eq!(lan.table.read().learned_len(), 1);
}

#[test]
fn promiscuous_ports() {
    let filter = Filter { unicast: vec![addr(3)], groups: vec![GROUP], promiscuous: true };
    for learning in [true, false] {
        let lan = Lan::with(Config { learning, ..Config::default() });
        let [a, b] = [1, 2].map(|n| Node::declared(&lan, n, &[]));
        let c = Node::open(&lan);
        c.port.set_filter(&filter);
        for (to, copies) in [
            (addr(2), !learning),
            (addr(3), true),
            (addr(9), true),
            (GROUP, true),
            (MacAddr::BROADCAST, true),
        ] {
            a.send(&[frame(to, addr(1), 0)]);
            assert_eq!(c.sink.take().len(), usize::from(copies), "{to} learning={learning}");
        }
        assert_eq!(b.sink.take().len(), 2);
    }
}

#[test]
fn learned_table_is_bounded_and_expires() {
    let lan = Lan::new();
    let [a, b] = [(); 2].map(|()| Node::open(&lan));
    let station = |n: u32| {
        let [_, x, y, z] = n.to_be_bytes();
        MacAddr([2, 1, 0, x, y, z])
    };
    for n in 0..LEARNED_MAX as u32 + 500 {
        a.send(&[frame(addr(9), station(n), 0)]);
    }
    assert_eq!(lan.table.read().learned_len(), LEARNED_MAX);
    let mac = crate::ether::mac_at(&station(LEARNED_MAX as u32 + 499).0, 0);
    let table = lan.table.read();
    assert_eq!(table.route(mac, LEARNED_AGE).0[0].len(), 1);
    assert_eq!(table.route(mac, LEARNED_AGE + lan.now() + 1).0[0].len(), 2);
    assert!(!table.touch(mac, &Arc::clone(&table.route(mac, 0).0[0][0]), LEARNED_AGE + lan.now() + 1));
    drop(table);
    b.send(&[frame(addr(9), MacAddr::BROADCAST, 0), frame(addr(9), MacAddr::UNSPECIFIED, 0)]);
    assert_eq!(lan.table.read().learned_len(), LEARNED_MAX);
    a.port.detach();
    assert_eq!(lan.table.read().learned_len(), 0);
}

#[test]
fn a_receiver_may_send() {
    let lan = Lan::new();
    let [a, b] = [1, 2].map(|n| Node::declared(&lan, n, &[]));
    b.sink.echo.set(Arc::downgrade(&b.port)).unwrap();
    a.send(&[frame(addr(2), addr(1), 0), frame(MacAddr::BROADCAST, addr(1), 1)]);
    assert_eq!(a.sink.take(), [frame(addr(1), addr(2), 0), frame(addr(1), MacAddr::BROADCAST, 1)]);
}

#[test]
fn life_of_a_port() {
    let lan = Lan::new();
    let a = Node::declared(&lan, 1, &[]);
    let b = Node { port: lan.port(), sink: Arc::default() };
    // Nothing before attach, but a filter may be declared.
    b.port.set_filter(&Filter { unicast: vec![addr(2)], ..Filter::default() });
    a.send(&[frame(MacAddr::BROADCAST, addr(1), 0)]);
    b.port.attach(b.sink.clone()).unwrap();
    assert!(b.sink.take().is_empty());
    assert!(matches!(b.port.attach(b.sink.clone()), Err(LinkError::Os { .. })));
    a.send(&[frame(addr(2), addr(1), 1)]);
    assert_eq!(b.sink.take().len(), 1);
    b.port.detach();
    b.port.detach();
    assert_eq!(Arc::strong_count(&b.sink), 1);
    a.send(&[frame(addr(2), addr(1), 2)]);
    assert!(b.sink.take().is_empty());
    let mut batch: Batch = VecDeque::from([Frame::copy_of(&frame(addr(1), addr(2), 0))]);
    assert_eq!(b.port.send(&mut batch), Err(LinkError::Detached));
    assert!(batch.is_empty());
    assert_eq!(b.port.counters().tx_down, 1);
    assert_eq!(b.port.attach(b.sink.clone()), Err(LinkError::Detached));
    let members = Arc::downgrade(&lan);
    drop((a, b, lan));
    assert!(members.upgrade().is_none());
}

#[test]
fn super_frames_and_checksums() {
    let mut big = Frame::new(60_000);
    big.fill(0);
    big[..6].copy_from_slice(&addr(2).0);
    big.gso_size = NonZeroU16::new(1460);
    big.checksum = Checksum::Trusted;

    let lan = Lan::new();
    let [a, b] = [1, 2].map(|n| Node::declared(&lan, n, &[]));
    a.port.send(&mut [big.clone()].into()).unwrap();
    assert_eq!(*b.sink.frames.lock(), [(Checksum::Trusted, NonZeroU16::new(1460))]);
    assert_eq!(b.sink.take()[0].len(), 60_000);

    let properties = Properties { mtu: 1500, gso_max: 0, trusted: false };
    let lan = Lan::with(Config { properties, ..Config::default() });
    let [a, b] = [1, 2].map(|n| Node::declared(&lan, n, &[]));
    let mut small = big.clone();
    small.truncate(100);
    a.port.send(&mut [big, small].into()).unwrap();
    assert_eq!(*b.sink.frames.lock(), [(Checksum::Present, NonZeroU16::new(1460))]);
    assert_eq!(a.port.counters().tx_bad_length, 1);
}

#[test]
fn names() {
    let open = crate::open;
    let first = open("switch://names[mtu=9000/gso=0]").unwrap();
    assert_eq!(first.properties(), Properties { mtu: 9000, gso_max: 0, trusted: true });
    let second = open("switch://names").unwrap();
    assert_eq!(second.properties(), first.properties());
    assert_eq!(
        open("switch://names[mtu=1500]").unwrap_err().to_string(),
        "vnl: \"mtu=1500\" in \"switch://names[mtu=1500]\" (should be 9000: the first port decided, and all of \
         one LAN agree)"
    );
    assert!(open("switch://names[gso=9]").is_err());
    assert!(open("switch://names[checksum]").is_err());
    assert!(open("switch://names[checksum=0]").is_ok());
    assert_eq!(open("hub://names").unwrap().properties().mtu, 1500);
    drop((first, second));
    // The LAN ended with its last port.
    assert!(!super::names().contains_key(&("switch".to_owned(), "names".to_owned())));
    assert_eq!(open("switch://names[checksum]").unwrap().properties().mtu, 1500);

    for (wrong, what) in [
        ("switch:///tmp/x[mtu=9217]", "from 68 to 9216"),
        ("switch://./x[gso=0]", "unknown key"),
        ("switch://x[mtu=1]", "from 68 to 65535"),
        ("switch://x[checksum=maybe]", "a flag"),
        ("hub://x[mode=0600]", "unknown key"),
    ] {
        let error = open(wrong).unwrap_err();
        assert!(matches!(error, LinkError::Syntax(_)) && error.to_string().contains(what), "{error}");
    }
}

#[test]
fn threads_come_and_go() {
    let lan = Lan::new();
    let threads: Vec<_> = (0..4u8)
        .map(|n| {
            let lan = lan.clone();
            std::thread::spawn(move || {
                for round in 0..200u8 {
                    let node =
                        if round % 2 == 0 { Node::open(&lan) } else { Node::declared(&lan, n, &[GROUP]) };
                    for to in [addr((n + 1) % 4), GROUP, MacAddr::BROADCAST] {
                        node.send(&[frame(to, addr(n), round), frame(addr(n), addr(n), round)]);
                    }
                    node.port.detach();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(lan.table.read().learned_len(), 0);
    assert_eq!(format!("{:?}", lan.table.read()), "Table { ports: 0, open: 0, declared: 0, learned: 0 }");
}
