//! The management socket of a switch of ours, with Debian's vde_switch as its judge.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use ioth_vde::node::{Config, Node};
use proptest::prelude::*;

use super::Switch;
use super::node::{Client, Served, request, scratch};
use crate::plug::{PATIENCE, frame, wait_until};

/// What differs by nature: addresses of hash tables, numbers of descriptors, who and how old.
fn comparable(answer: &str) -> String {
    let mut text = String::new();
    for line in answer.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let kept: Vec<_> = words
            .iter()
            .enumerate()
            .map(|(at, word)| match at.checked_sub(1).map(|before| words[before]) {
                Some("Hash:" | "ID" | "age" | "pid") => "*",
                _ => word,
            })
            .collect();
        text.push_str(&kept.join(" "));
        text.push('\n');
    }
    text
}

#[test]
fn management_answers_are_those_of_vde_switch() {
    const COMMANDS: &str = include_str!("management.txt");
    let theirs = Switch::start(16);
    let ours = Served::start(16);
    let mut plugs = Vec::new();
    for path in [theirs.dir.join("sw"), ours.path()] {
        for port in [3, 4, 5] {
            plugs.push(
                Client::plug(&path, &request(3, port << 8, format!("plug {port}").as_bytes())).unwrap(),
            );
        }
    }
    for of_one in plugs.chunks(3) {
        for (at, client) in of_one.iter().enumerate() {
            client.data.send(&frame(0xff, at as u8 + 1, 60, 0)).unwrap();
            for (_, other) in of_one.iter().enumerate().filter(|(other, _)| *other != at) {
                other.receive();
            }
        }
    }
    for known in ["hash/find 02:00:00:00:00:01", "hash/find 02:00:00:00:00:01 0"] {
        let answer = comparable(&ours.command(known));
        assert!(answer.contains("Addr: 02:00:00:00:00:01 VLAN 0000 to port: 003  age * secs\n"), "{answer}");
    }
    for command in COMMANDS.lines().filter(|line| !line.starts_with('#')) {
        let [expected, answer] = [theirs.command(command), ours.command(command)];
        let mut sorted = [comparable(&expected), comparable(&answer)];
        if command == "hash/print" {
            sorted = sorted.map(|text| {
                let mut lines: Vec<_> = text.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            });
        }
        assert_eq!(sorted[1], sorted[0], "{command}");
    }
    drop(plugs);
}

#[test]
fn hostile_managers() {
    let served = Served::start(8);
    let socket = served.dir.join("mgmt");
    // A line without end.
    let mut endless = UnixStream::connect(&socket).unwrap();
    endless.set_read_timeout(Some(PATIENCE)).unwrap();
    while endless.write_all(&[b'x'; 1000]).is_ok() {}
    // One that asks and does not read.
    let deaf = UnixStream::connect(&socket).unwrap();
    deaf.set_nonblocking(true).unwrap();
    while (&deaf).write_all(&b"help\n".repeat(100)).is_ok() {}
    // More than there is room for.
    let crowd: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let mut last = &crowd[39];
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    last.read_to_string(&mut said).unwrap();
    assert_eq!(said, "1016 Device or resource busy\n");
    drop((crowd, deaf, endless));
    wait_until("room for a manager", || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read(&mut [0; 1000]).is_ok_and(|len| len > 0)
    });
    // One of 16 places was the deaf one's, another perhaps still the endless one's; who looked for room may have been refused, too.
    let status = served.command("status/json");
    let refused =
        status.split_once("\"too many managers\":").and_then(|(_, rest)| rest.split(['}', ',']).next());
    assert!(refused.and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count >= 24), "{status}");
    let a = served.client();
    let b = served.client();
    a.data.send(&frame(0xff, 1, 60, 1)).unwrap();
    assert_eq!(b.receive(), frame(0xff, 1, 60, 1));
    assert!(a.control.peer_addr().is_ok());
}

#[test]
fn stations_that_expire_are_counted() {
    let served = Served::start(8);
    let [a, b] = [(); 2].map(|()| served.client());
    served.command("hash/setexpire 0");
    for station in 1..=3 {
        a.data.send(&frame(0xff, station, 60, 0)).unwrap();
        b.receive();
    }
    wait_until("expired stations", || served.command("status/json").contains("\"expired\":3,"));
}

/// A tag of VLAN 0 is a priority: the frame is of its port's VLAN, and goes on with its priority where it has a tag.
#[test]
fn priority_tags() {
    let served = Served::start(8);
    let plug = |port: u32| Client::plug(&served.path(), &request(3, port << 8, b"client")).unwrap();
    let [access, trunk, other] = [3, 4, 5].map(plug);
    for command in ["vlan/create 20", "port/setvlan 3 20", "port/setvlan 5 20", "vlan/addport 20 4"] {
        assert!(served.command(command).contains("1000 Success"), "{command}");
    }
    let plain = frame(0xff, 1, 60, 7);
    let tagged = |control: [u8; 2]| [&plain[..12], &[0x81, 0], &control, &plain[12..]].concat();
    access.data.send(&tagged([0xb0, 0])).unwrap();
    assert_eq!(trunk.receive(), tagged([0xb0, 20]));
    assert_eq!(other.receive(), plain);
    let drops = served.command("port/drops 3");
    assert!(drops.contains("rx_vlan=0"), "{drops}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Numbers of all sizes to all commands that change something: the switch goes on, and agrees with itself.
    #[test]
    fn any_commands(
        commands in proptest::collection::vec(
            (0..14usize, prop_oneof![-2..20i64, 4090..4100i64, 65_530..65_540i64, any::<i64>()], -2..20i64), 1..40),
    ) {
        const WORDS: [&str; 14] = [
            "port/create", "port/remove", "port/createauto", "port/setvlan", "port/allocatable", "port/setnumports",
            "port/sethub", "vlan/create", "vlan/remove", "vlan/addport", "vlan/delport", "hash/setsize",
            "hash/setexpire", "port/resetcounter",
        ];
        let dir = scratch();
        let mut node = Node::open(Config::new(dir.join("sw"))).unwrap();
        for (word, first, second) in commands {
            // A table that is shown with more places than memory has is only shown so.
            let line = format!("{} {first} {second}", WORDS[word]);
            let answer = node.command(&line).unwrap();
            prop_assert!(answer.ends_with('\n'), "{line}: {answer}");
        }
        let ports = node.command("port/allprint").unwrap().matches("untagged_vlan=").count();
        let listed = node.command("status/json").unwrap().matches("\"port\":").count();
        prop_assert_eq!(ports, listed);
        drop(node);
        std::fs::remove_dir(&dir).unwrap();
    }
}
