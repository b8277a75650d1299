use parking_lot::{Condvar, Mutex};
use proptest::prelude::*;

use super::*;
use crate::{Batch, Counters, Properties, Receiver};

const MS: Duration = Duration::from_millis(1);

fn config(text: &str) -> Config {
    text.parse().unwrap()
}

/// Sends `count` numbered frames, one a millisecond, and tells what arrives when.
fn run(config: Config, count: u32) -> (Vec<(Duration, Vec<u8>)>, Faults) {
    let mut fault = Fault::new(config);
    let mut arrived = Vec::new();
    let mut now = Duration::ZERO;
    for number in 0..count {
        let next = MS * number;
        while let Some(deadline) = fault.next_deadline().filter(|deadline| *deadline <= next) {
            now = now.max(deadline);
            arrived.extend(fault.pop(now).map(|frame| (now, frame.to_vec())));
        }
        now = next;
        fault.push(now, Frame::copy_of(&number.to_be_bytes()));
    }
    while let Some(deadline) = fault.next_deadline() {
        assert!(deadline >= now || fault.pop(now).is_some());
        now = now.max(deadline);
        arrived.extend(fault.pop(now).map(|frame| (now, frame.to_vec())));
    }
    (arrived, fault.faults())
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame.try_into().unwrap())
}

#[test]
fn options() {
    assert_eq!(config(""), Config::default());
    assert_eq!(
        config(
            "loss=5%/delay=10ms/jitter=3/reorder=2.5%/hold=1.5s/duplicate=1%/corrupt=0.1/rate=10m/lim=7/seed=0x2a"
        ),
        Config {
            loss: 0.05,
            delay: MS * 10,
            jitter: MS * 3,
            reorder: 0.025,
            hold: MS * 1500,
            duplicate: 0.01,
            corrupt: 0.001,
            rate: NonZeroU64::new(10_000_000),
            limit: 7,
            seed: 42,
        }
    );
    for wrong in [
        "loss=101%",
        "loss=-1",
        "loss=x",
        "loss=nan",
        "delay=1h",
        "delay=-1",
        "delay=9999s",
        "rate=0",
        "limit=0",
        "x=1",
    ] {
        assert!(matches!(wrong.parse::<Config>(), Err(LinkError::Syntax(_))), "{wrong}");
    }
    assert_eq!(
        "loss=x".parse::<Config>().unwrap_err().to_string(),
        "vnl: \"loss=x\" in \"loss=x\" (should be percent from 0 to 100, such as 2.5%)"
    );
}

#[test]
fn a_perfect_network() {
    let (arrived, faults) = run(Config::default(), 100);
    assert_eq!(faults, Faults::default());
    assert!(arrived.iter().enumerate().all(|(n, (at, f))| number(f) == n as u32 && *at == MS * n as u32));
}

#[test]
fn chances_and_seeds() {
    let bad = config("loss=10%/duplicate=5%/corrupt=2%/seed=1");
    let (arrived, faults) = run(bad.clone(), 10_000);
    assert!((900..1100).contains(&faults.lost), "{faults:?}");
    assert!((380..520).contains(&faults.duplicated), "{faults:?}");
    assert!((130..230).contains(&faults.corrupted), "{faults:?}");
    assert_eq!(arrived.len() as u64, 10_000 - faults.lost + faults.duplicated);
    assert_eq!(run(bad.clone(), 10_000), (arrived.clone(), faults));
    assert_ne!(run(Config { seed: 2, ..bad }, 10_000).0, arrived);
    assert_eq!(run(config("loss=100%"), 50).0, []);
}

#[test]
fn delay_and_jitter_keep_the_order() {
    let (arrived, _) = run(config("delay=10ms/jitter=3ms"), 1000);
    let mut spread = (Duration::MAX, Duration::ZERO);
    for (n, (at, frame)) in arrived.iter().enumerate() {
        assert_eq!(number(frame), n as u32);
        let took = *at - MS * n as u32;
        spread = (spread.0.min(took), spread.1.max(took));
    }
    assert!(
        spread.0 >= MS * 7 && spread.0 < MS * 9 && spread.1 > MS * 12 && spread.1 <= MS * 13,
        "{spread:?}"
    );
}

#[test]
fn reordered_frames_are_overtaken() {
    let (arrived, faults) = run(config("reorder=10%/hold=5ms"), 1000);
    let late = arrived.iter().filter(|(at, frame)| *at == MS * (number(frame) + 5)).count();
    assert_eq!(late as u64, faults.reordered);
    assert!((60..150).contains(&late));
    assert_eq!(arrived.len(), 1000);
}

#[test]
fn rate_and_limit() {
    // 4 bytes a frame: 32 bits at 16 kbit/s take 2 ms, but one comes each.
    let (arrived, faults) = run(config("rate=16k/limit=10"), 100);
    assert!(arrived.windows(2).all(|pair| pair[1].0 - pair[0].0 >= MS * 2));
    assert!(faults.overrun > 30);
    assert_eq!(arrived.len() as u64 + faults.overrun, 100);
}

/// Keeps what it gets and tells who waits.
#[derive(Debug, Default)]
struct Sink {
    seen: Mutex<(Vec<Vec<u8>>, bool, Option<LinkError>)>,
    changed: Condvar,
}

impl Receiver for Sink {
    fn receive(&self, frames: &mut Batch) {
        self.seen.lock().0.extend(frames.drain(..).map(|frame| frame.to_vec()));
        self.changed.notify_all();
    }

    fn writable(&self) {
        self.seen.lock().1 = true;
    }

    fn down(&self, cause: LinkError) {
        self.seen.lock().2 = Some(cause);
    }
}

impl Sink {
    fn wait(&self, count: usize) -> Vec<Vec<u8>> {
        let mut seen = self.seen.lock();
        while seen.0.len() < count {
            let late = self.changed.wait_for(&mut seen, Duration::from_secs(10)).timed_out();
            assert!(!late, "{} of {count} frames", seen.0.len());
        }
        std::mem::take(&mut seen.0)
    }
}

fn frame(n: u8) -> Vec<u8> {
    let mut frame = vec![n; 60];
    frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1]);
    frame
}

fn batch(numbers: std::ops::Range<u8>) -> Batch {
    numbers.map(|n| Frame::copy_of(&frame(n))).collect()
}

#[test]
fn wrapped_link() {
    let near = crate::open("fault://{switch://fault-test[mtu=900]}/delay=5ms/loss=0%").unwrap();
    let far = crate::open("switch://fault-test").unwrap();
    assert_eq!(near.properties(), Properties { mtu: 900, gso_max: 0, trusted: false });
    let sinks: [Arc<Sink>; 2] = Default::default();
    near.attach(sinks[0].clone()).unwrap();
    far.attach(sinks[1].clone()).unwrap();
    assert!(near.attach(sinks[0].clone()).is_err());
    let start = std::time::Instant::now();
    let mut frames = batch(0..20);
    frames.push_back(Frame::copy_of(&[0; 1000]));
    near.send(&mut frames).unwrap();
    assert!(frames.is_empty() && sinks[1].seen.lock().0.is_empty());
    assert_eq!(sinks[1].wait(20), (0..20).map(frame).collect::<Vec<_>>());
    assert!(start.elapsed() >= MS * 5);
    far.send(&mut batch(7..8)).unwrap();
    assert_eq!(sinks[0].wait(1), [frame(7)]);
    let counters = near.counters();
    assert_eq!((counters.tx_frames, counters.tx_bad_length, counters.rx_frames), (20, 1, 1));

    far.send(&mut batch(0..1)).unwrap();
    near.detach();
    assert_eq!(near.send(&mut batch(0..1)), Err(LinkError::Detached));
    // The thread that was about to deliver lets go of it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while Arc::strong_count(&sinks[0]) > 1 {
        assert!(std::time::Instant::now() < deadline, "the receiver is kept");
        std::thread::yield_now();
    }
    assert!(crate::open("fault://x{null://}").is_err());
    assert!(crate::open("fault://null://").is_err());
}

#[test]
fn one_direction_only() {
    let open = |options: &str| {
        let near = crate::open(&format!("fault://{{switch://fault-dir}}/loss=100%{options}")).unwrap();
        let far = crate::open("switch://fault-dir").unwrap();
        let sinks: [Arc<Sink>; 2] = Default::default();
        near.attach(sinks[0].clone()).unwrap();
        far.attach(sinks[1].clone()).unwrap();
        near.send(&mut batch(0..1)).unwrap();
        far.send(&mut batch(0..1)).unwrap();
        sinks.map(|sink| sink.seen.lock().0.len())
    };
    assert_eq!(open(""), [0, 0]);
    assert_eq!(open("/tx"), [1, 0]);
    assert_eq!(open("/rx"), [0, 1]);
    assert_eq!(open("/tx/rx"), [0, 0]);
}

/// A link whose room is set by the test.
#[derive(Debug, Default)]
struct Narrow {
    room: Mutex<usize>,
    sent: Mutex<Vec<Vec<u8>>>,
    receiver: Mutex<Option<Arc<dyn Receiver>>>,
}

impl Link for Narrow {
    fn properties(&self) -> Properties {
        Properties { mtu: 1500, gso_max: 0, trusted: false }
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        *self.receiver.lock() = Some(receiver);
        Ok(())
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let mut room = self.room.lock();
        let count = frames.len().min(*room);
        *room -= count;
        self.sent.lock().extend(frames.drain(..count).map(|frame| frame.to_vec()));
        Ok(())
    }

    fn detach(&self) {}

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

#[test]
fn back_pressure_passes_through() {
    let narrow = Arc::new(Narrow::default());
    *narrow.room.lock() = 3;
    let link = FaultLink::new(narrow.clone(), Config::default(), Config::default()).unwrap();
    let sink = Arc::<Sink>::default();
    link.attach(sink.clone()).unwrap();
    link.send(&mut batch(0..5)).unwrap();
    let mut more = batch(5..7);
    link.send(&mut more).unwrap();
    assert_eq!((narrow.sent.lock().len(), more.len(), sink.seen.lock().1), (3, 2, false));
    let below = narrow.receiver.lock().clone().unwrap();
    *narrow.room.lock() = 1;
    below.writable();
    assert_eq!((narrow.sent.lock().len(), sink.seen.lock().1), (4, false));
    *narrow.room.lock() = 10;
    below.writable();
    assert!(sink.seen.lock().1);
    link.send(&mut more).unwrap();
    assert_eq!(*narrow.sent.lock(), (0..7).map(frame).collect::<Vec<_>>());
    below.down(LinkError::Gone("narrow".to_owned()));
    assert_eq!(sink.seen.lock().2, Some(LinkError::Gone("narrow".to_owned())));
    assert_eq!(link.send(&mut batch(0..1)), Err(LinkError::Gone("narrow".to_owned())));
}

proptest! {
    #[test]
    fn any_config(text in "([a-z]{1,5}=[0-9.%a-z-]{0,6}/?){0,4}") {
        let _ = text.parse::<Config>();
    }

    #[test]
    fn nothing_vanishes_unseen(loss in 0.0..1.0f64, duplicate in 0.0..1.0f64, reorder in 0.0..1.0f64,
                               jitter in 0..20u32, limit in 1..50usize, seed: u64) {
        let config = Config {
            loss, duplicate, reorder, jitter: MS * jitter, delay: MS * 5, limit, seed, ..Config::default()
        };
        let (arrived, faults) = run(config, 100);
        prop_assert_eq!(arrived.len() as u64, 100 + faults.duplicated - faults.lost - faults.overrun);
        prop_assert!(arrived.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }
}
