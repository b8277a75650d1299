//! What a node costs that has nothing to do: no thread, no wake-up, little memory.
//!
//! One test in a process of its own: it counts what the whole process does.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ioth::Stack;

const NODES: u32 = 1_000;
const MANY_NODES: u32 = 10_000;
const QUIET: Duration = Duration::from_secs(10);
/// Contract 4 of the design.
const NODE_MEMORY: usize = 64 << 10;

#[test]
fn idle_nodes() {
    // What is made once for all nodes.
    let _first = node("first", 1);

    let (nodes, memory) = make("lan", NODES);
    assert!(memory < NODE_MEMORY, "{memory} bytes a node");
    let threads = switches();
    println!("threads: {}", threads.len());
    let before = settled();
    std::thread::sleep(QUIET);
    let mut after = switches();
    // This thread's own sleep is one.
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let own = own.file_name().unwrap().to_str().unwrap().to_owned();
    *after.get_mut(&own).unwrap() -= 1;
    assert_eq!(before, after, "a thread woke up in {QUIET:?} of idleness");
    end(nodes);

    let (nodes, memory) = make("many", MANY_NODES);
    assert!(memory < NODE_MEMORY, "{memory} bytes a node");
    end(nodes);
}

fn node(lan: &str, number: u32) -> Stack {
    let (high, low) = (number >> 16, number & 0xffff);
    Stack::new(&format!("stack=smoltcp,vnl=switch://{lan},ip=fd00::{high:x}:{low:x}/64")).unwrap()
}

/// The nodes, and the memory that each has, in bytes.
fn make(lan: &str, count: u32) -> (Vec<Stack>, usize) {
    let mut nodes = Vec::with_capacity(count as usize);
    let before = proportional_set_size();
    let start = Instant::now();
    nodes.extend((1..=count).map(|number| node(lan, number)));
    let time = start.elapsed() / count;
    let memory = proportional_set_size().saturating_sub(before) / count as usize;
    println!("{count} nodes: {time:?} and {:.1} KiB each", memory as f64 / 1024.0);
    (nodes, memory)
}

fn end(nodes: Vec<Stack>) {
    let count = nodes.len() as u32;
    let start = Instant::now();
    for node in nodes {
        node.delete().unwrap();
    }
    println!("{count} nodes deleted: {:?} each", start.elapsed() / count);
}

/// The voluntary context switches of every thread, by its id: each is a wake-up to come.
fn switches() -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let tasks = tasks.map(|task| task.unwrap());
    tasks
        .map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap();
            let count = field(&status, "voluntary_ctxt_switches:");
            (task.file_name().into_string().unwrap(), count as u64)
        })
        .collect()
}

/// The same, once what the last calls left to do is done.
fn settled() -> BTreeMap<String, u64> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = switches();
        std::thread::sleep(Duration::from_secs(1));
        let after = switches();
        let changed = after.iter().filter(|(id, count)| before.get(*id) != Some(*count)).count();
        // This thread slept.
        if changed <= 1 {
            return switches();
        }
        assert!(Instant::now() < deadline, "the process does not come to rest: {before:?}, then {after:?}");
    }
}

fn proportional_set_size() -> usize {
    field(&std::fs::read_to_string("/proc/self/smaps_rollup").unwrap(), "Pss:") * 1024
}

fn field(text: &str, name: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}
