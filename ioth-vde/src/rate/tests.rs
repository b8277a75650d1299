use std::sync::Condvar;

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps what comes, with when.
#[derive(Debug, Default)]
struct Seen {
    state: std::sync::Mutex<(Vec<Vec<u8>>, bool)>,
    changed: Condvar,
}

impl Receiver for Seen {
    fn receive(&self, frames: &mut Batch) {
        self.state.lock().unwrap().0.extend(frames.drain(..).map(|frame| frame.to_vec()));
        self.changed.notify_all();
    }

    fn writable(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn down(&self, _: LinkError) {}
}

impl Seen {
    fn wait<T>(&self, mut condition: impl FnMut(&mut (Vec<Vec<u8>>, bool)) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(value) = condition(&mut state) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} frames in time", state.0.len());
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

fn plug(vnl: &str) -> (Arc<dyn Link>, Arc<Seen>) {
    let link = crate::open(vnl).unwrap();
    let seen = Arc::<Seen>::default();
    link.attach(seen.clone()).unwrap();
    (link, seen)
}

fn frames(count: u32) -> Batch {
    let mut frame = vec![0xff; 1000];
    let numbered = |number: u32| {
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        Frame::copy_of(&frame)
    };
    (0..count).map(numbered).collect()
}

#[test]
fn a_meter_in_virtual_time() {
    // 8 Mbit/s are 1000 bytes a millisecond; a burst of two.
    let mut meter = Meter::new(NonZeroU64::new(8_000_000), 2000);
    let at = Duration::from_millis;
    for _ in 0..3 {
        assert_eq!(meter.wait(at(0)), None);
        meter.charge(at(0), 1000);
    }
    assert_eq!(meter.wait(at(0)), Some(at(1)));
    assert_eq!(meter.wait(at(1)), None);
    meter.charge(at(1), 1000);
    assert_eq!(meter.wait(at(1)), Some(at(2)));
    meter.refund(1000);
    assert_eq!(meter.wait(at(1)), None);
    // A pause is worth a burst, however long it was.
    for _ in 0..3 {
        assert_eq!(meter.wait(at(1_000_000)), None);
        meter.charge(at(1_000_000), 1000);
    }
    assert_eq!(meter.wait(at(1_000_000)), Some(at(1_000_001)));
    let mut unlimited = Meter::new(None, 1);
    unlimited.charge(at(0), usize::MAX);
    assert_eq!(unlimited.wait(at(0)), None);
}

#[test]
fn senders_wait_and_lose_nothing() {
    let (link, here) = plug("rate://{switch://rate-sent}/tx=80m/burst=1500");
    let (_there, seen) = plug("switch://rate-sent");
    let mut batch = frames(200);
    let mut waits = 0;
    loop {
        link.send(&mut batch).unwrap();
        if batch.is_empty() {
            break;
        }
        waits += 1;
        here.wait(|(_, writable)| std::mem::take(writable).then_some(()));
    }
    assert!(waits > 0, "some had to wait");
    let all = seen.wait(|(seen, _)| (seen.len() >= 200).then(|| std::mem::take(seen)));
    let numbers: Vec<_> =
        all.iter().map(|frame| u32::from_be_bytes(frame[14..18].try_into().unwrap())).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    let counters = link.counters();
    assert_eq!((counters.tx_frames, counters.tx_bytes, counters.tx_down), (200, 200_000, 0));
}

#[test]
fn what_is_received_waits_within_its_limit() {
    let (link, seen) = plug("rate://{switch://rate-received}/rx=80m/burst=1/limit=50");
    let (there, _) = plug("switch://rate-received");
    there.send(&mut frames(80)).unwrap();
    // The first goes at once, or finds the queue as long as it may be.
    let lost = link.counters().rx_overrun;
    assert!(lost > 0 && lost <= 30, "{lost} are lost");
    let all = seen.wait(|(seen, _)| (seen.len() as u64 + lost >= 80).then(|| std::mem::take(seen)));
    assert!(all.is_sorted() && link.counters().rx_frames == all.len() as u64);
}

#[test]
fn the_end_is_told_and_nothing_waits_behind_it() {
    let (link, _) = plug("rate://{switch://rate-end}/rate=1k/burst=1");
    let mut batch = frames(3);
    link.send(&mut batch).unwrap();
    assert_eq!(batch.len(), 2);
    link.detach();
    assert_eq!(link.send(&mut batch), Err(LinkError::Detached));
    assert!(batch.is_empty() && link.counters().tx_down == 2);
}

#[test]
fn options() {
    let of = |text: &str| text.parse::<Config>();
    let ten = NonZeroU64::new(10_000_000);
    assert_eq!(of("").unwrap(), Config::default());
    assert_eq!(of("rate=10m").unwrap(), Config { sent: ten, received: ten, ..Config::default() });
    assert_eq!(of("rate=1g/tx=10m").unwrap().sent, ten);
    assert_eq!(of("burst=64k/limit=5").unwrap(), Config { burst: 65_536, limit: 5, ..Config::default() });
    for wrong in ["rate=0", "rate=x", "rate", "tx=-1", "burst=0", "limit=0", "limit=2m", "speed=3"] {
        let error = crate::open(&format!("rate://{{null://}}/{wrong}")).unwrap_err();
        assert!(matches!(error, LinkError::Syntax(_)), "{wrong}: {error}");
    }
    assert!(crate::open("rate://5{null://}").is_err() && crate::open("rate://").is_err());
}

proptest! {
    #[test]
    fn any_text(text in r"[a-z0-9=/.]{0,30}") {
        let _ = text.parse::<Config>();
    }

    /// Whatever is sent when it may be: never more than the rate and a burst, and what waits has its turn.
    #[test]
    fn no_faster_than_said(
        rate in 1_000..1_000_000_000u64, burst in 1..100_000u64,
        steps in proptest::collection::vec((0..2_000_000u64, 14..9000usize), 1..200),
    ) {
        let mut meter = Meter::new(NonZeroU64::new(rate), burst);
        let (mut now, mut bits, mut longest) = (Duration::ZERO, 0u128, 0u128);
        for (nanos, len) in steps {
            now += Duration::from_nanos(nanos);
            if let Some(due) = meter.wait(now) {
                prop_assert!(due > now);
                now = due;
            }
            prop_assert_eq!(meter.wait(now), None);
            meter.charge(now, len);
            bits += len as u128 * 8;
            longest = longest.max(len as u128 * 8);
            // The rounding of each frame's time is less than a nanosecond.
            let most = (now.as_nanos() + 200) * u128::from(rate) / 1_000_000_000 + u128::from(burst) * 8 + longest + 8;
            prop_assert!(bits <= most, "{bits} bits of {most}");
        }
    }
}
