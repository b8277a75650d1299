//! docs/posix.md's table, made from what the stacks do.
//!
//! A [`Row`] names a call or an option and has a probe that says in a few words what came of it. Every probe runs on
//! the kernel (two namespaces on a wire) and on smoltcp, over IPv4 and IPv6. Where both say the same, smoltcp's cell
//! says so; a row where they differ needs a remark that says why, or the test fails. The text between the marks in
//! docs/posix.md has to be what the run gives: `IOTH_WRITE_DOCS=1 cargo test -p ioth --test socket table` writes it.
//!
//! To add rows, add lines to the module of their topic. A probe must not depend on sysctls, on time or on numbers that
//! the stack chooses.

mod absent;
mod calls;
mod creation;
mod filters;
mod flags;
mod kinds;
mod messages;
mod netlink;
mod options;
mod requests;
mod states;
mod structures;
mod sys;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::fixture::{Family, LONG, Pair, bounded_by, smoltcp};
use crate::namespaces::{kernel_net, privileged};

/// A line of the table.
pub(crate) struct Row {
    /// The call with its circumstances, or the option.
    pub(crate) name: String,
    /// What came of it, in a few words. An empty text: nothing to be said for this family.
    pub(crate) probe: Box<dyn Fn(&Pair) -> String>,
    /// Why smoltcp differs.
    pub(crate) remark: &'static str,
}

/// Rows of one topic.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

fn sections() -> Vec<Section> {
    vec![
        Section { title: "Creation", rows: creation::rows() },
        Section { title: "Calls", rows: calls::rows() },
        Section { title: "States of a stream", rows: states::stream::rows() },
        Section { title: "States of a datagram socket", rows: states::datagram::rows() },
        Section { title: "Options of SOL_SOCKET", rows: options::socket() },
        Section { title: "Options of IPPROTO_TCP", rows: options::tcp() },
        Section { title: "Options of IPPROTO_IP", rows: options::ip() },
        Section { title: "Options of IPPROTO_IPV6", rows: options::ipv6() },
        Section { title: "Options of IPPROTO_UDP and IPPROTO_UDPLITE", rows: options::lite() },
        Section { title: "Options that are not a number", rows: structures::rows() },
        Section { title: "Filters", rows: filters::rows() },
        Section { title: "Flags", rows: flags::rows() },
        Section { title: "Requests by ioctl", rows: requests::rows() },
        Section { title: "Control messages", rows: messages::rows() },
        Section { title: "Requests by netlink", rows: netlink::rows() },
    ]
}

/// A row by its name, its probe and, where smoltcp differs, the reason.
pub(crate) fn row(
    name: impl Into<String>,
    probe: impl Fn(&Pair) -> String + 'static,
    remark: &'static str,
) -> Row {
    Row { name: name.into(), probe: Box::new(probe), remark }
}

/// The outcome of a call: "ok", or the name of its errno.
pub(crate) fn said<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => errno_name(error.raw_os_error().unwrap_or(0)),
    }
}

/// The outcome of a call that gives a number.
pub(crate) fn said_number<T: std::fmt::Display>(result: io::Result<T>) -> String {
    result.map_or_else(|error| said::<T>(Err(error)), |number| number.to_string())
}

pub(crate) fn errno_name(errno: i32) -> String {
    if errno == 0 { "no error".into() } else { format!("{:?}", Errno::from_raw(errno)) }
}

/// What each row gave, and what docs/posix.md is to say of it.
struct Outcome {
    name: String,
    kernel: String,
    smoltcp: String,
    remark: &'static str,
}

impl Outcome {
    fn differs(&self) -> bool {
        self.smoltcp != SAME
    }
}

const SAME: &str = "same";
const BEGIN: &str = "<!-- begin of the table that the socket tests write -->\n";
const END: &str = "<!-- end of the table -->\n";

#[test]
fn posix_table() {
    privileged("table::posix_table", || {
        // Many sockets of the kernel's are made and closed, which takes its time.
        bounded_by(12 * LONG, || {
            let stacks = [kernel_net, smoltcp].map(|stack| [Family::V4, Family::V6].map(stack));
            let mut text = String::new();
            let (mut differing, mut unexplained, mut count) = (Vec::new(), Vec::new(), 0);
            for section in sections() {
                let outcomes: Vec<_> = section.rows.iter().map(|row| observe(row, &stacks)).collect();
                count += outcomes.len();
                write_table(&mut text, section.title, &outcomes);
                for outcome in outcomes.into_iter().filter(Outcome::differs) {
                    if outcome.remark.is_empty() {
                        unexplained
                            .push(format!("{}: {} / {}", outcome.name, outcome.kernel, outcome.smoltcp));
                    }
                    differing.push(outcome);
                }
            }
            assert!(unexplained.is_empty(), "kernel / smoltcp differ:\n{}", unexplained.join("\n"));
            let mut all = format!("{count} rows, {} of which differ from the kernel.\n", differing.len());
            write_table(&mut all, "Rows that differ", &differing);
            all.push_str(
                "\n### Options that are not there\nsmoltcp answers ENOPROTOOPT, as an old kernel would (some, as Linux does on some sockets, \
                 EOPNOTSUPP). In brackets: the kinds of sockets without it, where others have it, and whether it is \
                 without it for getsockopt(2) or setsockopt(2). The numbers 0 to 127 of each level were tried, by both calls, on \
                 each kind of socket. Nothing is there that Linux does not have.\n\n",
            );
            all.push_str(&absent::list(&stacks));
            all.push_str(&text);
            compare(&all);
        })
    });
}

fn observe(row: &Row, [kernel, smoltcp]: &[[Pair; 2]; 2]) -> Outcome {
    let ask = |pairs: &[Pair; 2]| {
        let [v4, v6] = [&pairs[0], &pairs[1]].map(|pair| (row.probe)(pair));
        match () {
            () if v4 == v6 || v6.is_empty() => v4,
            () if v4.is_empty() => v6,
            () => format!("IPv4: {v4}<br>IPv6: {v6}"),
        }
    };
    let (kernel, smoltcp) = (ask(kernel), ask(smoltcp));
    let smoltcp = if smoltcp == kernel { SAME.into() } else { smoltcp };
    Outcome { name: row.name.clone(), kernel, smoltcp, remark: row.remark }
}

fn write_table(text: &mut String, title: &str, outcomes: &[Outcome]) {
    let _ =
        write!(text, "\n### {title}\n| call or option | kernel | smoltcp | remark |\n|---|---|---|---|\n");
    for outcome @ Outcome { name, kernel, smoltcp, remark } in outcomes {
        let remark = if outcome.differs() { remark } else { "" };
        let line = [name, kernel, smoltcp, remark].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", line.join(" | "));
    }
}

/// Compares the generated text with the one in docs/posix.md, or writes it there.
fn compare(table: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/posix.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("docs/posix.md has the mark where the table begins");
    let (written, after) = rest.split_once(END).expect("docs/posix.md has the mark where the table ends");
    if std::env::var_os("IOTH_WRITE_DOCS").is_some() {
        std::fs::write(&file, [before, BEGIN, table, END, after].concat()).unwrap();
        return;
    }
    let wrong = table.lines().zip(written.lines()).find(|(is, was)| is != was);
    assert!(
        written == table,
        "docs/posix.md is not what the stacks do; \
         `IOTH_WRITE_DOCS=1 cargo test -p ioth --test socket table` brings it up to date.\n\
         First difference, now and as written: {wrong:#?}"
    );
}
