//! `fault://{inner}/loss=5%/delay=10ms`: a network as bad as asked for, the same way each time.
//!
//! | key | meaning |
//! |---|---|
//! | `loss`, `duplicate`, `corrupt` | chance in percent that a frame is lost, comes twice, has a bit flipped |
//! | `delay`, `jitter` | time that a frame takes, and how much that varies either way; frames keep their order |
//! | `reorder`, `hold` | chance that later frames overtake it, held back for so long in addition (1 ms) |
//! | `rate` | bits per second; k, m and g are powers of 1000 |
//! | `limit` | frames under way; what comes on top is dropped (1000) |
//! | `seed` | of the dice (0) |
//! | `tx`, `rx` | only what is sent, or received; else each direction has dice of its own |
//!
//! Times have a unit of ns, us, ms (the default) or s.
//!
//! [`Fault`] does it without I/O, for tests in virtual time; [`FaultLink`] is the wrapper around a link.

mod link;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::schemes::Spec;
use crate::vnl::{Keys, Params, syntax};
use crate::{Checksum, Frame, Link, LinkError};

pub use link::FaultLink;

/// How bad a network is. The default is a perfect one.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Chance that a frame is lost, 0 to 1.
    pub loss: f64,
    /// Chance that a frame comes twice, 0 to 1.
    pub duplicate: f64,
    /// Chance that a bit of a frame is flipped, 0 to 1.
    pub corrupt: f64,
    /// Chance that a frame is overtaken, 0 to 1.
    pub reorder: f64,
    /// How much longer such a frame takes.
    pub hold: Duration,
    /// How long a frame takes.
    pub delay: Duration,
    /// By how much that varies, either way; frames keep their order.
    pub jitter: Duration,
    /// Bits per second.
    pub rate: Option<NonZeroU64>,
    /// Frames under way at most.
    pub limit: usize,
    /// Seed of the dice.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            reorder: 0.0,
            hold: Duration::from_millis(1),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            limit: 1000,
            seed: 0,
        }
    }
}

impl FromStr for Config {
    type Err = LinkError;

    /// Reads what follows the inner VNL: `loss=5%/delay=10ms/...`.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        Config::from_params(&Params::parse(text, KEYS, text)?)
    }
}

/// What went wrong on purpose, and for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames lost.
    pub lost: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames with a bit flipped.
    pub corrupted: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames dropped because [`Config::limit`] others were under way.
    pub overrun: u64,
}

/// One direction of a bad network, without I/O.
///
/// [`push`](Self::push) a frame, and [`pop`](Self::pop) what has arrived; when nothing has,
/// [`next_deadline`](Self::next_deadline) tells when to come back. Time is counted from wherever the caller
/// likes, and must not go backwards. The same seed and calls give the same result.
#[derive(Debug)]
pub struct Fault {
    config: Config,
    dice: Dice,
    /// By arrival, then by number.
    flying: BTreeMap<(Duration, u64), Frame>,
    pushed: u64,
    /// When the last one that was not held back arrives: no other overtakes it.
    last: Duration,
    /// Until when the wire is busy.
    busy: Duration,
    faults: Faults,
}

impl Fault {
    /// An empty network.
    pub fn new(config: Config) -> Self {
        Fault {
            dice: Dice(config.seed),
            config,
            flying: BTreeMap::new(),
            pushed: 0,
            last: Duration::ZERO,
            busy: Duration::ZERO,
            faults: Faults::default(),
        }
    }

    /// Takes a frame.
    pub fn push(&mut self, now: Duration, mut frame: Frame) {
        if self.dice.chance(self.config.loss) {
            self.faults.lost += 1;
            return;
        }
        let twice = self.dice.chance(self.config.duplicate);
        let copy = twice.then(|| frame.clone());
        if self.dice.chance(self.config.corrupt) && !frame.is_empty() {
            self.faults.corrupted += 1;
            let bit = self.dice.below(frame.len() as u64 * 8);
            frame[(bit / 8) as usize] ^= 1 << (bit % 8);
            // It has to be found out by the receiver.
            frame.checksum = Checksum::Present;
        }
        self.launch(now, frame);
        if let Some(copy) = copy {
            self.faults.duplicated += 1;
            self.launch(now, copy);
        }
    }

    /// The next frame that has arrived.
    pub fn pop(&mut self, now: Duration) -> Option<Frame> {
        let first = self.flying.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When the next frame arrives.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    /// Loses all that is under way.
    pub fn clear(&mut self) {
        self.flying.clear();
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    fn launch(&mut self, now: Duration, frame: Frame) {
        if self.flying.len() >= self.config.limit {
            self.faults.overrun += 1;
            return;
        }
        let mut departure = now;
        if let Some(rate) = self.config.rate {
            let nanos = frame.len() as u128 * 8 * 1_000_000_000 / u128::from(rate.get());
            let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            departure = self.busy.max(now).saturating_add(takes);
            self.busy = departure;
        }
        let jitter = self.config.jitter;
        let span = u64::try_from(jitter.as_nanos() * 2).unwrap_or(u64::MAX);
        let varied = self.config.delay + Duration::from_nanos(self.dice.below(span.saturating_add(1)));
        let mut arrival = departure.saturating_add(varied.saturating_sub(jitter));
        if self.dice.chance(self.config.reorder) {
            self.faults.reordered += 1;
            arrival = arrival.max(self.last).saturating_add(self.config.hold);
        } else {
            arrival = arrival.max(self.last);
            self.last = arrival;
        }
        self.flying.insert((arrival, self.pushed), frame);
        self.pushed += 1;
    }
}

/// SplitMix64: small, seedable, and the same everywhere.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    fn chance(&mut self, chance: f64) -> bool {
        // Rolled in any case: one probability more does not change what the others decide.
        ((self.roll() >> 11) as f64) < chance * (1u64 << 53) as f64
    }
}

const KEYS: Keys = &[
    "loss",
    "delay",
    "jitter",
    "reorder",
    "hold",
    "duplicate",
    "corrupt",
    "rate",
    "limit",
    "seed",
    "tx",
    "rx",
];
/// Longest of the times: what is longer is a mistake.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// Largest queue: at 2 KiB a frame, 2 GiB.
const LIMIT_MAX: u64 = 1 << 20;

impl Config {
    fn from_params(params: &Params) -> Result<Self, LinkError> {
        let default = Config::default();
        let percent = |key| match params.get(key) {
            None => Ok(0.0),
            Some(value) => match value.strip_suffix('%').unwrap_or(value).parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
                _ => Err(params.wrong(key, "percent from 0 to 100, such as 2.5%")),
            },
        };
        let time = |key, default| match params.get(key) {
            None => Ok(default),
            Some(value) => {
                time(value).ok_or_else(|| params.wrong(key, "a time of up to an hour, such as 10ms"))
            }
        };
        let rate = match params.get("rate") {
            None => None,
            Some(value) => Some(rate(value).ok_or_else(|| {
                params.wrong("rate", "bits per second, such as 10m (k, m, g: powers of 1000)")
            })?),
        };
        let limit = params.number("limit", 1..=LIMIT_MAX)?;
        Ok(Config {
            loss: percent("loss")?,
            duplicate: percent("duplicate")?,
            corrupt: percent("corrupt")?,
            reorder: percent("reorder")?,
            hold: time("hold", default.hold)?,
            delay: time("delay", default.delay)?,
            jitter: time("jitter", default.jitter)?,
            rate,
            limit: limit.map_or(default.limit, |limit| limit as usize),
            seed: params.number("seed", 0..=u64::MAX)?.unwrap_or(default.seed),
        })
    }
}

fn time(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= TIME_MAX)
}

/// Bits per second, with powers of 1000.
pub(crate) fn rate(text: &str) -> Option<NonZeroU64> {
    let (number, unit) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 1000),
        b'm' => (&text[..text.len() - 1], 1_000_000),
        b'g' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    NonZeroU64::new(number.parse::<u64>().ok()?.checked_mul(unit)?)
}

/// Opens `fault://{inner}/...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let parts = spec.nested()?;
    if !parts.before.is_empty() {
        let what = format!("\"{}\" before '{{' in \"{}\" (options follow the '}}')", parts.before, spec.vnl);
        return Err(syntax(what));
    }
    let params = Params::parse(parts.after, KEYS, spec.vnl)?;
    let config = Config::from_params(&params)?;
    let perfect = Config { limit: usize::MAX, ..Config::default() };
    let (tx, rx) = (params.flag("tx")?, params.flag("rx")?);
    let sent = if rx && !tx { perfect.clone() } else { config.clone() };
    // Dice of its own: else both directions would lose the same frames.
    let seed = Dice(config.seed).roll();
    let received = if tx && !rx { perfect } else { Config { seed, ..config } };
    Ok(Arc::new(FaultLink::new(spec.inner(parts.inner)?, sent, received)?))
}

#[cfg(test)]
mod tests;
