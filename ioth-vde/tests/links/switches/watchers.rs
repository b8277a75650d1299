//! What a manager is told of its own accord, with Debian's vde_switch as the judge.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Switch;
use super::node::{Client, Served, request};
use crate::plug::{PATIENCE, frame, wait_until};

/// A manager who stays.
struct Manager {
    stream: UnixStream,
    heard: String,
}

impl Manager {
    fn new(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut manager = Manager { stream, heard: String::new() };
        manager.until("\nvde$ ");
        manager
    }

    /// What is said up to this, with it.
    fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(end) {
                let rest = self.heard.split_off(at + end.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            let mut buffer = [0; 4096];
            let len = self.stream.read(&mut buffer).unwrap_or_else(|error| {
                panic!("no {end:?}: {error}, after {:?}", self.heard);
            });
            assert!(len > 0, "the end instead of {end:?}, after {:?}", self.heard);
            self.heard.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        }
    }

    fn command(&mut self, command: &str) -> String {
        self.stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        self.until("\nvde$ ")
    }
}

/// Without the numbers of descriptors and the switch's own address.
fn comparable(text: &str) -> String {
    let mut kept = Vec::new();
    for line in text.lines() {
        let line = line.split(" -> 80:00:").next().unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let word = |(at, word): (usize, &&str)| match at.checked_sub(1).map(|before| words[before]) {
            Some("FD") => "*".to_owned(),
            _ => (*word).to_owned(),
        };
        kept.push(words.iter().enumerate().map(word).collect::<Vec<_>>().join(" "));
    }
    kept.join("\n")
}

/// The same story with a switch of either kind: all that a manager was told.
fn story(dir: &Path, management: &Path) -> String {
    let mut manager = Manager::new(management);
    let mut other = Manager::new(management);
    let mut told = String::new();
    let mut ask = |manager: &mut Manager, command: &str| {
        let answer = manager.command(command);
        told.push_str(&format!("{command}\n{answer}\n"));
    };
    for command in [
        "debug/add port/+",
        "debug/add port",
        "debug/add port",
        "debug/add hash/",
        "debug/add",
        "debug/add hash",
        "debug/del port/+ x",
        "debug/del hash",
        "debug/del hash",
        "debug/list",
        "debug/add hash",
        "port/create 7",
        "port/createauto",
        "vlan/create 300",
        "port/remove 7",
    ] {
        ask(&mut manager, command);
    }
    ask(&mut other, "debug/list");
    let plug = |port: u32, name: &str| Client::plug(dir, &request(3, port << 8, name.as_bytes())).unwrap();
    let three = plug(3, "three");
    told.push_str(&manager.until("\"three\"\n"));
    let also = plug(3, "also three");
    told.push_str(&manager.until("\"also three\"\n"));
    let five = plug(5, "");
    told.push_str(&manager.until("\"\"\n"));
    for station in [1, 2, 1] {
        three.data.send(&frame(0xff, station, 60, 0)).unwrap();
        five.receive();
    }
    told.push_str(&manager.until("02 VLAN 00:00 Port 3\n"));
    let mut ask = |command: &str| {
        let answer = manager.command(command);
        told.push_str(&format!("{command}\n{answer}\n"));
    };
    ask("fstp/setedge 0 5 1");
    ask("port/setvlan 5 300");
    five.data.send(&frame(0xff, 9, 60, 0)).unwrap();
    told.push_str(&manager.until("09 VLAN 2c:01 Port 5\n"));
    drop(five);
    told.push_str(&manager.until("3012 hash/- 02:00:00:00:00:09 VLAN 2c:01 Port 5\n"));
    drop(also);
    told.push_str(&manager.until("port/ep/- Port 03 FD "));
    manager.until("\n");
    // Nobody tells who does not watch.
    let answer = other.command("port/showinfo");
    assert!(answer.starts_with("0000 DATA"), "{answer}");
    told
}

#[test]
fn watchers_hear_what_vde_switch_tells() {
    let theirs = Switch::start(16);
    let ours = Served::start(16);
    let expected = comparable(&story(&theirs.dir.join("sw"), &theirs.dir.join("mgmt")));
    let told = comparable(&story(&ours.path(), &ours.dir.join("mgmt")));
    // What theirs forgets of another port, when one changes its VLAN, is its own affair.
    let of_other = |line: &&str| !(line.starts_with("3012 hash/-") && line.ends_with("Port 3"));
    let [told, expected] =
        [&told, &expected].map(|text| text.lines().filter(of_other).collect::<Vec<_>>().join("\n"));
    assert_eq!(told, expected);
}

#[test]
fn a_watcher_who_does_not_read_misses_lines_and_holds_nobody_up() {
    let served = Served::start(8);
    let mut deaf = Manager::new(&served.dir.join("mgmt"));
    assert!(deaf.command("debug/add hash").starts_with("1000"));
    let [a, b] = [(); 2].map(|()| served.client());
    let missing = || {
        let status = served.command("status/json");
        let (_, rest) = status.split_once("\"debug_missing\":").unwrap();
        rest[..rest.find(',').unwrap()].parse::<u64>().unwrap()
    };
    let mut station = 0_u32;
    wait_until("lines that were missed", || {
        for _ in 0..1000 {
            station += 1;
            let mut flood = frame(0xff, 1, 60, station);
            flood[8..12].copy_from_slice(&station.to_be_bytes());
            a.data.send(&flood).unwrap();
            b.receive();
        }
        missing() > 0
    });
    // It gets whole lines once it reads, and answers after them.
    let heard = deaf.command("debug/del hash");
    let (lines, answer) = heard.rsplit_once("1000 Success").unwrap();
    assert!(lines.lines().all(|line| line.starts_with("3011 hash/+ 02:00:") && line.ends_with(" Port 1")));
    assert_eq!(answer, "\n\nvde$ ");
    drop(deaf);
    b.data.send(&frame(0xff, 2, 60, 0)).unwrap();
    assert_eq!(a.receive(), frame(0xff, 2, 60, 0));
}
