//! Runs random and mutated programs through a fuzz entry for as long as one likes, without a fuzzer's instrumentation.
//!
//! ```text
//!   cargo run --release -p ioth-tests --bin soak -- --minutes 60 --seed 1 --jobs 2
//! ```
//! The same seed and number of jobs give the same programs in the same order. Inputs come from the committed corpus,
//! and those that bring about something new are kept for a while. An input that fails is made as short as it gets,
//! shown, and saved where `cargo fuzz run TARGET FILE` takes it; put it into `fuzz/corpus/TARGET` when it is mended.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use ioth_tests::fuzz::{ENTRIES, Entry, Tally, ingress_tally};

/// Inputs that a job keeps because they brought about something new; beyond, a random one goes.
const MAX_POOL: usize = 4000;
/// Runs, and time, that making a failing input shorter may take.
const MAX_SHORTENING: usize = 4000;
const SHORTENING_TIME: Duration = Duration::from_secs(40);
/// Frames beyond which an input is too slow to be worth changing.
const MAX_FRAMES: u64 = 3000;
/// A program that takes longer hangs, on however busy a machine.
const HANGS: Duration = Duration::from_secs(60);
/// How often what was reached is told.
const REPORT: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(about = "Runs random programs through a fuzz entry, and saves the shortest that fails")]
struct Args {
    /// How long to run
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads, each with programs of its own
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// The fuzz entry
    #[arg(long, default_value = "ingress")]
    target: String,
    /// Length of an input at most, in bytes
    #[arg(long, default_value_t = 1024)]
    max_len: usize,
    /// Programs of each job at most
    #[arg(long, default_value_t = u64::MAX)]
    programs: u64,
    /// Where inputs to begin with are, instead of the committed corpus
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Where inputs that fail go, instead of fuzz/artifacts/TARGET
    #[arg(long)]
    artifacts: Option<PathBuf>,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Run this input only, and tell what happens in it
    #[arg(long)]
    show: Option<PathBuf>,
    /// Save what brought about something new in this directory
    #[arg(long)]
    save_new: Option<PathBuf>,
}

/// What the jobs have in common.
struct Soak {
    args: Args,
    entry: Entry,
    start: Instant,
    stop: AtomicBool,
    total: Mutex<Total>,
    /// What each job runs, and since when.
    running: Vec<Mutex<Option<Running>>>,
}

struct Running {
    since: Instant,
    input: Vec<u8>,
}

#[derive(Default)]
struct Total {
    programs: u64,
    tally: Tally,
    kept: usize,
    findings: HashSet<String>,
    reported: Duration,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(&(_, entry)) = ENTRIES.iter().find(|(name, _)| *name == args.target) else {
        let names: Vec<_> = ENTRIES.iter().map(|(name, _)| *name).collect();
        eprintln!("soak: unknown target {:?} (known: {})", args.target, names.join(", "));
        return ExitCode::from(2);
    };
    if let Some(file) = &args.show {
        return match std::fs::read(file) {
            Ok(input) if args.target == "ingress" => {
                println!("{:?}", ingress_tally(&input, true));
                ExitCode::SUCCESS
            }
            Ok(input) => {
                entry(&input);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("soak: {}: {error}", file.display());
                ExitCode::from(2)
            }
        };
    }
    let corpus = args.corpus.clone().unwrap_or_else(|| fuzz().join("corpus").join(&args.target));
    let seeds = read_corpus(&corpus);
    eprintln!("soak: {}, {} inputs to begin with", args.target, seeds.len());
    // What fails tells so once, when it is short.
    std::panic::set_hook(Box::new(|_| {}));
    let jobs = args.jobs.max(1);
    let soak = Soak {
        running: (0..jobs).map(|_| Mutex::new(None)).collect(),
        entry,
        start: Instant::now(),
        stop: AtomicBool::new(false),
        total: Mutex::new(Total::default()),
        args,
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|job| {
                let (soak, seeds) = (&soak, seeds.clone());
                scope.spawn(move || soak.work(job, seeds))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::park_timeout(Duration::from_millis(200));
            soak.watch();
        }
    });
    let total = soak.total();
    soak.report(&total);
    if total.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Soak {
    fn work(&self, job: u64, mut pool: Vec<Vec<u8>>) {
        let mut dice =
            Dice(self.args.seed.wrapping_mul(0x1000_0000_01b3) ^ job.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let committed = pool.len();
        let mut known = HashSet::new();
        let limit = Duration::from_secs_f64(self.args.minutes * 60.0);
        for program in 0..self.args.programs {
            if self.stop.load(Ordering::Relaxed) || self.start.elapsed() >= limit {
                break;
            }
            let input = match pool.get(program as usize) {
                // First what is there already, as it is.
                Some(input) if (program as usize) < committed => input.clone(),
                _ => dice.input(&pool, self.args.max_len),
            };
            *lock(&self.running[job as usize]) =
                Some(Running { since: Instant::now(), input: input.clone() });
            let outcome = self.run(&input);
            *lock(&self.running[job as usize]) = None;
            match outcome {
                Ok(tally) => {
                    let new = known.insert(tally.signature);
                    let quick = input.len() <= self.args.max_len && tally.frames <= MAX_FRAMES;
                    if new && quick && program as usize >= committed {
                        self.keep(&input);
                        if pool.len() < MAX_POOL {
                            pool.push(input);
                        } else {
                            let at = committed + dice.below(MAX_POOL - committed);
                            pool[at] = input;
                        }
                    }
                    self.count(&tally, pool.len());
                }
                Err(what) => self.found(&input, &what),
            }
        }
    }

    fn run(&self, input: &[u8]) -> Result<Tally, String> {
        let run = || match self.args.target.as_str() {
            "ingress" => ingress_tally(input, false),
            // The others tell nothing of what they did.
            _ => {
                (self.entry)(input);
                Tally { steps: 1, ..Tally::default() }
            }
        };
        std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        })
    }

    fn count(&self, tally: &Tally, kept: usize) {
        let mut total = self.total();
        total.programs += 1;
        total.tally.steps += tally.steps;
        total.tally.micros += tally.micros;
        total.tally.frames += tally.frames;
        total.tally.injected += tally.injected;
        total.tally.transfers += tally.transfers;
        total.kept = kept;
        if self.start.elapsed() - total.reported >= REPORT {
            total.reported = self.start.elapsed();
            self.report(&total);
        }
    }

    fn report(&self, total: &Total) {
        let Total { programs, tally, kept, findings, .. } = total;
        let hours = tally.micros as f64 / 3.6e9;
        println!(
            "{:.0} s: {programs} programs, {} steps, {hours:.0} virtual hours, {} frames sent, {} forged, \
             {} connections found well, {kept} inputs in the pool, {} findings",
            self.start.elapsed().as_secs_f64(),
            tally.steps,
            tally.frames,
            tally.injected,
            tally.transfers,
            findings.len(),
        );
    }

    /// An input fails: the first of its kind is made short, saved and shown.
    fn found(&self, input: &[u8], what: &str) {
        let kind = kind(what);
        if !self.total().findings.insert(kind.clone()) {
            return;
        }
        let short = self.shorten(input, &kind);
        let what = self.run(&short).err().unwrap_or_else(|| what.to_owned());
        self.save(&short, &what);
        if !self.args.keep_going {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// A thread cannot be stopped, so a program that hangs is the end.
    fn watch(&self) {
        for running in &self.running {
            if let Some(Running { since, input }) = &*lock(running)
                && since.elapsed() > HANGS
            {
                self.save(input, &format!("a program runs for more than {} s", HANGS.as_secs()));
                self.report(&self.total());
                std::process::exit(1);
            }
        }
    }

    fn save(&self, short: &[u8], what: &str) {
        let target = &self.args.target;
        let dir = self.args.artifacts.clone().unwrap_or_else(|| fuzz().join("artifacts").join(target));
        let file = dir.join(format!("soak-{:016x}", fnv(short)));
        let saved = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, short));
        println!("FOUND: {what}\n  {} bytes: {short:02x?}", short.len());
        match saved {
            Ok(()) => println!("  saved as {}", file.display()),
            Err(error) => println!("  {}: {error}", file.display()),
        }
    }

    /// Cuts off the end and takes pieces out, as long as the input fails in the same way.
    fn shorten(&self, input: &[u8], kind: &str) -> Vec<u8> {
        let mut best = input.to_vec();
        let (mut runs, start) = (0, Instant::now());
        let mut fails = |candidate: &[u8]| {
            runs += 1;
            runs <= MAX_SHORTENING
                && start.elapsed() < SHORTENING_TIME
                && self.run(candidate).is_err_and(|what| self::kind(&what) == kind)
        };
        let mut piece = best.len() / 2;
        while piece > 0 {
            // From the end on: what comes late depends on what came before.
            let mut at = best.len();
            while at > 0 {
                let from = at.saturating_sub(piece);
                let candidate = [&best[..from], &best[at..]].concat();
                if fails(&candidate) {
                    best = candidate;
                }
                at = from.min(best.len());
            }
            piece /= 2;
        }
        for at in 0..best.len() {
            let mut candidate = best.clone();
            if std::mem::take(&mut candidate[at]) != 0 && fails(&candidate) {
                best = candidate;
            }
        }
        best
    }

    fn keep(&self, input: &[u8]) {
        if let Some(dir) = &self.args.save_new {
            let saved = std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::write(dir.join(format!("{:016x}", fnv(input))), input));
            if let Err(error) = saved {
                eprintln!("soak: {}: {error}", dir.display());
            }
        }
    }

    fn total(&self) -> MutexGuard<'_, Total> {
        lock(&self.total)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// splitmix64, and inputs made with it.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A fresh input, or one of the pool that is changed.
    fn input(&mut self, pool: &[Vec<u8>], max_len: usize) -> Vec<u8> {
        if pool.is_empty() || self.below(8) == 0 {
            let len = 1 + self.below(max_len);
            return self.bytes(len);
        }
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len() + 1);
            let end = (at + 1 + self.below(24)).min(input.len());
            match self.below(7) {
                0 => input.truncate(at),
                1 if at < end => drop(input.drain(at..end)),
                2 if at < end => {
                    let piece = input[at..end].to_vec();
                    input.splice(at..at, piece);
                }
                3 => {
                    let len = 1 + self.below(16);
                    let piece = self.bytes(len);
                    input.splice(at..at, piece);
                }
                4 => {
                    let other = &pool[self.below(pool.len())];
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend(&other[from..]);
                }
                5 if at < input.len() => input[at] ^= 1 << self.below(8),
                _ if at < input.len() => input[at] = self.next() as u8,
                _ => input.push(self.next() as u8),
            }
        }
        input.truncate(max_len);
        input
    }
}

/// What a failure says without its numbers: by it two are the same.
fn kind(what: &str) -> String {
    what.lines().next().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn read_corpus(dir: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) => {
            eprintln!("soak: {}: {error}", dir.display());
            Vec::new()
        }
    };
    files.sort();
    files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("fuzz")
}
