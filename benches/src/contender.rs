//! Who takes part, and how each is asked for a sample of a row.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ioth::Stack;

use crate::node::Node;
use crate::peers::frames::{self, Server};
use crate::peers::remote::Remote;
use crate::peers::switch::Switch;
use crate::peers::vdestack::{self, Helper};
use crate::peers::{Scratch, netns};
use crate::row::Row;
use crate::work::{self, Pair, Sample};

/// Takes one sample.
pub(crate) type Probe = Box<dyn FnMut() -> io::Result<Sample>>;

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Ours on the LAN in the process.
    Lan,
    /// Ours over vde_switch.
    Vde,
    /// Ours on a switch of ours in a directory, which the process of the first node serves.
    Path,
    /// Ours as a process for each node, over the same switch.
    Process,
    /// A kernel's stack in a namespace of ours, over the same switch.
    Namespace,
    /// The C library over the same switch.
    Vdestack,
    /// The kernel between two namespaces.
    Veth,
    /// The kernel's loopback.
    Loopback,
    /// Ours on a TAP interface of the kernel at the other end.
    Tap,
    /// The kernel in a namespace, whose TAP interface slirp4netns joins to the kernel at the other end.
    Slirp,
    /// The same with pasta.
    Pasta,
    /// Our switch, between plugs of the C library.
    Switch,
    /// Debian's switch.
    VdeSwitch,
    /// The C library's own switch.
    Vdeplug,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Lan => "ours, LAN",
            Contender::Vde => "ours, vde_switch",
            Contender::Path => "ours, switch://PATH",
            Contender::Process => "our node, vde_switch",
            Contender::Namespace => "our vdestack, vde_switch",
            Contender::Vdestack => "C vdestack, vde_switch",
            Contender::Veth => "kernel, veth",
            Contender::Loopback => "kernel, loopback",
            Contender::Tap => "ours, TAP",
            Contender::Slirp => "kernel, slirp4netns",
            Contender::Pasta => "kernel, pasta",
            Contender::Switch => "ioth switch",
            Contender::VdeSwitch => "vde_switch",
            Contender::Vdeplug => "vdeplug switch://",
        }
    }

    /// Those that a row compares, in the order of their turns.
    pub(crate) fn of(row: Row) -> &'static [Contender] {
        use Contender::{
            Lan, Loopback, Namespace, Pasta, Path, Process, Slirp, Switch, Tap, Vde, VdeSwitch, Vdeplug,
            Vdestack, Veth,
        };
        match row {
            Row::TcpBulk | Row::PingPong | Row::Udp | Row::Connections => {
                &[Lan, Vde, Process, Namespace, Vdestack, Veth, Loopback]
            }
            // Over a switch every packet is one of 1500 bytes; loopback has none of that size.
            Row::TcpMtu1500 | Row::Creation => &[Lan, Vde, Namespace, Vdestack, Veth],
            // A namespace's memory is the kernel's and in no process's PSS.
            Row::Memory => &[Lan, Vde, Vdestack],
            Row::TapOut | Row::TapIn => &[Tap, Slirp, Pasta],
            Row::TcpProcesses | Row::PingProcesses => &[Path, Vde, Vdestack],
            Row::Frames64 | Row::Frames1514 | Row::Frames500Ports => &[Switch, VdeSwitch, Vdeplug],
        }
    }
}

/// What contenders stand on. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Ground {
    switch: Result<Switch, String>,
    helper: Result<PathBuf, String>,
    plugs: Result<PathBuf, String>,
    scratch: Scratch,
    span: Duration,
    nodes: usize,
}

/// Plugs of the switch that the rows share.
const PORTS: usize = 256;
/// Stacks of a helper's in the memory row: each is a process.
const PROCESSES: usize = 40;

impl Ground {
    pub(crate) fn prepare(scratch: Scratch, span: Duration, quick: bool) -> Self {
        Ground {
            switch: Switch::start(scratch.path(), PORTS),
            helper: vdestack::build(scratch.path()),
            plugs: frames::build(scratch.path()),
            scratch,
            span,
            nodes: if quick { 100 } else { 1000 },
        }
    }

    /// What takes a contender's samples of a row; else what is missing.
    pub(crate) fn probe(&self, contender: Contender, row: Row) -> Result<Probe, String> {
        match row {
            Row::Creation => self.creation(contender),
            Row::Memory => self.memory(contender),
            Row::TcpProcesses | Row::PingProcesses => self.processes(contender, row),
            Row::Frames64 => self.frames(contender, 64, 0),
            Row::Frames1514 => self.frames(contender, 1514, 0),
            Row::Frames500Ports => self.frames(contender, 64, 498),
            _ => {
                let pair = self.pair(contender, row)?;
                let span = self.span;
                let work = match row {
                    Row::PingPong => work::ping_pong,
                    Row::Udp => work::udp,
                    Row::Connections => work::connections,
                    Row::TapIn => work::bulk_back,
                    _ => work::bulk,
                };
                Ok(Box::new(move || work(&pair, span)))
            }
        }
    }

    fn pair(&self, contender: Contender, row: Row) -> Result<Pair, String> {
        let packets = row == Row::TcpMtu1500;
        match contender {
            Contender::Lan => {
                let options = if packets { "[gso=0/checksum]" } else { "" };
                ours("smoltcp", &format!("switch://bench-{}{options}", row.name()))
            }
            Contender::Vde => ours("smoltcp", self.switch()?.vnl()),
            Contender::Process => {
                // That which was built with the bench, if there is one; else the stack looks for it.
                if let Some(command) = beside("ioth") {
                    ioth::register(ioth::node::NAME, ioth::node::factory_by(command));
                }
                ours("node", self.switch()?.vnl())
            }
            Contender::Namespace => ours("vdestack", self.switch()?.vnl()),
            Contender::Vdestack => {
                let (a, b) = (self.helper("10.98.0.1/24")?, self.helper("10.98.0.2/24")?);
                let addr = ([10, 98, 0, 2], 0).into();
                Ok(Pair { a: Node::Vdestack(a), b: Node::Vdestack(b), addr, seen_as: None })
            }
            Contender::Veth => netns::veth(packets),
            Contender::Loopback => {
                Ok(Pair { a: Node::Host, b: Node::Host, addr: ([127, 0, 0, 1], 0).into(), seen_as: None })
            }
            Contender::Tap => netns::tap(),
            Contender::Slirp => netns::slirp(),
            Contender::Pasta => netns::pasta(),
            Contender::Path => Err("it is measured between processes only".to_owned()),
            Contender::Switch | Contender::VdeSwitch | Contender::Vdeplug => {
                Err("it has no stacks".to_owned())
            }
        }
    }

    /// A node here, which calls, and one in a process of its own, which answers.
    fn processes(&self, contender: Contender, row: Row) -> Result<Probe, String> {
        let config = |vnl: &str, host| format!("stack=smoltcp,vnl={vnl},eth,ip=10.97.0.{host}/24");
        let ours = |config: String| Stack::new(&config).map(Node::Ours).map_err(|error| error.to_string());
        let (here, mut there, addr) = match contender {
            Contender::Vdestack => {
                let (program, vnl) = (self.helper.clone()?, self.switch()?.vnl());
                let here = Node::Vdestack(self.helper("10.98.0.1/24")?);
                (here, Remote::vdestack(&program, vnl, "10.98.0.2/24")?, [10, 98, 0, 2])
            }
            Contender::Path => {
                let path = self.scratch.path().join(format!("path-{}", row.name()));
                // It serves the switch, and has to be first.
                let here = ours(config(&format!("switch://{}", path.display()), 1))?;
                let there = Remote::ours(&config(&format!("vde://{}", path.display()), 2))?;
                (here, there, [10, 97, 0, 2])
            }
            _ => {
                let vnl = self.switch()?.vnl();
                (ours(config(vnl, 1))?, Remote::ours(&config(vnl, 2))?, [10, 97, 0, 2])
            }
        };
        let span = self.span;
        Ok(Box::new(move || there.measure(&here, addr.into(), row, span)))
    }

    fn frames(&self, contender: Contender, len: usize, idle: usize) -> Result<Probe, String> {
        let plugs = self.plugs.clone()?;
        let dir = self.scratch.subdirectory(&format!("frames-{len}-{idle}-{contender:?}"))?;
        let (server, span) = (Server::start(contender, &dir, idle + 16)?, self.span);
        Ok(Box::new(move || server.measure(&plugs, len, span, idle)))
    }

    fn creation(&self, contender: Contender) -> Result<Probe, String> {
        const NODES: usize = 50;
        const PROCESSES: usize = 5;
        let timed = |count: usize, mut create: Box<dyn FnMut() -> io::Result<()>>| -> Probe {
            Box::new(move || {
                let start = Instant::now();
                for _ in 0..count {
                    create()?;
                }
                Ok((start.elapsed().as_secs_f64() * 1e6 / count as f64).into())
            })
        };
        let ours = |stack: &str, vnl: &str| {
            let config = format!("stack={stack},vnl={vnl},eth,ip=10.99.1.1/24");
            timed(NODES, Box::new(move || Ok(Stack::new(&config)?.delete()?)))
        };
        match contender {
            Contender::Lan => Ok(ours("smoltcp", "switch://bench-creation")),
            Contender::Vde => Ok(ours("smoltcp", self.switch()?.vnl())),
            Contender::Namespace => Ok(ours("vdestack", self.switch()?.vnl())),
            Contender::Vdestack => self.leaking(|helper| {
                Ok((helper.create(PROCESSES)?.as_secs_f64() * 1e6 / PROCESSES as f64).into())
            }),
            _ => Ok(timed(NODES, Box::new(netns::create))),
        }
    }

    fn memory(&self, contender: Contender) -> Result<Probe, String> {
        let nodes = self.nodes;
        match contender {
            Contender::Vdestack => {
                self.leaking(|helper| Ok((helper.memory(PROCESSES)? as f64 / PROCESSES as f64).into()))
            }
            Contender::Vde => {
                let dir = self.scratch.subdirectory("memory")?;
                // A port for each; a new switch each time, since one takes long to see a thousand plugs out.
                Ok(Box::new(move || {
                    let switch = Switch::start(&dir, nodes + 8).map_err(io::Error::other)?;
                    memory_of(switch.vnl(), nodes)
                }))
            }
            _ => Ok(Box::new(move || memory_of("switch://bench-memory", nodes))),
        }
    }

    /// Samples by a helper and a switch of their own each time: a stack that the C library deletes leaves descriptors
    /// open and its plug in the switch.
    fn leaking(&self, sample: impl Fn(&Helper) -> io::Result<Sample> + 'static) -> Result<Probe, String> {
        let program = self.helper.clone()?;
        let dir = self.scratch.subdirectory("leaking")?;
        Ok(Box::new(move || {
            let switch = Switch::start(&dir, PORTS).map_err(io::Error::other)?;
            let helper = Helper::start(&program, switch.vnl(), "10.98.0.1/24").map_err(io::Error::other)?;
            sample(&helper)
        }))
    }

    fn switch(&self) -> Result<&Switch, String> {
        self.switch.as_ref().map_err(Clone::clone)
    }

    fn helper(&self, cidr: &str) -> Result<Arc<Helper>, String> {
        let helper = self.helper.as_ref().map_err(Clone::clone)?;
        Helper::start(helper, self.switch()?.vnl(), cidr).map(Arc::new)
    }
}

/// A program in the directory of this one.
fn beside(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

/// Two stacks of ours on a network.
fn ours(stack: &str, vnl: &str) -> Result<Pair, String> {
    // Both may be on one switch, in turns.
    let net = match stack {
        "smoltcp" => 97,
        "vdestack" => 96,
        _ => 95,
    };
    let node = |host: u8| {
        Stack::new(&format!("stack={stack},vnl={vnl},eth,ip=10.{net}.0.{host}/24"))
            .map(Node::Ours)
            .map_err(|error| error.to_string())
    };
    Ok(Pair { a: node(1)?, b: node(2)?, addr: ([10, net, 0, 2], 0).into(), seen_as: None })
}

/// Asks a process of its own.
fn memory_of(vnl: &str, nodes: usize) -> io::Result<Sample> {
    let output = Command::new("/proc/self/exe")
        .args(["--memory", &nodes.to_string(), vnl])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match text(&output.stdout).parse::<f64>() {
        Ok(kib) if output.status.success() => Ok(kib.into()),
        _ => Err(io::Error::other(text(&output.stderr))),
    }
}
