//! Measures stacks of the Internet of Threads beside the kernel's and the C library's.
//!
//! All contenders of a row take turns, A B C A B C, so that what else the machine does meets all of them alike: only
//! ratios within one run mean anything. Peers that are missing are reported, with the command that brings them.
#![deny(unsafe_code)]

mod args;
mod contender;
mod memory;
mod node;
mod peers;
mod row;
mod sys;
mod table;
mod work;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use args::{Options, parse};
use contender::{Contender, Ground};
use peers::Scratch;
use row::Row;
use table::{Column, Measured};

fn main() -> ExitCode {
    let command = match parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(wrong) => {
            eprintln!("ioth-bench: {wrong}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        args::Command::Help => {
            print!("{}", args::HELP);
            for row in Row::ALL {
                println!("  {:<14} {} ({})", row.name(), row.about(), row.unit());
            }
            Ok(())
        }
        args::Command::Version => {
            println!("ioth-bench {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        args::Command::Memory { vnl, nodes } => {
            let _ = raise_limits();
            memory::measure(&vnl.unwrap_or_default(), nodes).map(|kib| println!("{kib}"))
        }
        args::Command::Switch { path, ports } => {
            let _ = raise_limits();
            peers::frames::serve(&path, ports)
        }
        args::Command::Node(what) => {
            let _ = raise_limits();
            peers::remote::answer(&what)
        }
        args::Command::Measure(options) => measure(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ioth-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    enter_own_namespace();
    raise_limits().map_err(failed("RLIMIT_NOFILE"))?;
    let scratch = Scratch::new().map_err(failed("a directory for the peers"))?;
    clean_up_on_signals(scratch.path().to_owned()).map_err(failed("signals"))?;
    let mut json = match &options.json {
        Some(file) => {
            Some(std::fs::File::create(file).map_err(|error| format!("{}: {error}", file.display()))?)
        }
        None => None,
    };

    let machine = machine();
    println!("machine: {machine}");
    println!(
        "{} rounds of {} ms, all contenders in turn; median, min..max,",
        options.rounds,
        options.span.as_millis()
    );
    println!(
        "and how many times better ours is: on the LAN, over vde_switch, ... (median of the rounds' ratios)\n"
    );
    let ground = Ground::prepare(scratch, options.span, options.quick);
    let mut rows = Vec::new();
    for row in &options.rows {
        let measured = run(*row, &ground, options.rounds);
        println!("{}", measured.text());
        rows.push(measured.json());
    }
    if let Some(file) = &mut json {
        let machine = table::quoted(&machine);
        let (rounds, rows) = (options.rounds, rows.join(",\n"));
        writeln!(file, "{{\"machine\":{machine},\"rounds\":{rounds},\"rows\":[\n{rows}\n]}}")
            .map_err(failed("writing the JSON file"))?;
    }
    Ok(())
}

/// All rounds of a row.
fn run(row: Row, ground: &Ground, rounds: usize) -> Measured {
    let mut probes = Vec::new();
    let mut columns = Vec::new();
    for contender in Contender::of(row) {
        let (probe, trouble) = match ground.probe(*contender, row) {
            Ok(probe) => (Some(probe), None),
            Err(missing) => (None, Some(missing)),
        };
        probes.push(probe);
        columns.push(Column { contender: *contender, trouble, samples: Vec::new() });
    }
    for _ in 0..rounds {
        for (slot, column) in probes.iter_mut().zip(&mut columns) {
            let Some(probe) = slot else { continue };
            match probe() {
                Ok(sample) => column.samples.push(sample),
                Err(error) => {
                    column.trouble = Some(format!("round {}: {error}", column.samples.len() + 1));
                    *slot = None;
                }
            }
        }
    }
    Measured { row, columns }
}

/// What the figures depend on.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "{cores} cores ({}), Linux {}, kernel TCP congestion control {}, load {}",
        model.map_or("unknown", |(_, model)| model),
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
        read("/proc/loadavg"),
    )
}

/// Without root's rights, starts over as the root of a user namespace, with a network namespace.
fn enter_own_namespace() {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.arg("-Urn");
        command
    };
    if nix::unistd::geteuid().is_root() {
        // In a fresh network namespace loopback is down; elsewhere this changes nothing.
        let _ = Command::new("ip").args(["link", "set", "lo", "up"]).stderr(Stdio::null()).status();
        return;
    }
    let allowed = unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !allowed {
        eprintln!(
            "ioth-bench: unshare -Urn does not work here: without root's rights namespaces can't be made"
        );
        return;
    }
    match std::env::current_exe() {
        Ok(own) => {
            let error = unshare().arg(own).args(std::env::args_os().skip(1)).exec();
            eprintln!("ioth-bench: unshare: {error}");
        }
        Err(error) => eprintln!("ioth-bench: its own path: {error}"),
    }
}

/// Descriptors as many as can be had: sockets of the C library's are made ahead.
fn raise_limits() -> std::io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 16), hard)?)
}

/// The processes end with this one; the directory has to be removed.
fn clean_up_on_signals(scratch: PathBuf) -> std::io::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // Before any other thread, which inherits it.
    signals.thread_block()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Ok(signal) = signals.wait() {
            let _ = std::fs::remove_dir_all(&scratch);
            std::process::exit(128 + signal as i32);
        }
    })?;
    Ok(())
}
