//! `multi://` and `bonding://`: ours with Debian's plugs, and Debian's with ours.

use std::path::Path;

use crate::plug::{Dir, Plug, frame, wait_until};

/// The node's end and two links to it, all three able to send.
fn trunk(scheme: &str, theirs: bool) -> (Dir, Plug, [Plug; 2]) {
    let dir = Dir::new();
    let path = dir.path("trunk");
    let (host, link) = if theirs {
        (format!("cmd://vde_plug {scheme}://{path}"), format!("vde://{path}"))
    } else {
        (format!("{scheme}://{path}"), format!("cmd://vde_plug vde://{path}"))
    };
    let host = Plug::new(&host);
    wait_until("the trunk's socket", || Path::new(&path).join("ctl").exists());
    let links = [(); 2].map(|()| Plug::new(&link));
    for (number, link) in links.iter().enumerate() {
        // What is sent before the switch knows the plug is lost.
        link.reach(&host, &frame(1, 100 + number as u8, 60, 0));
    }
    (dir, host, links)
}

/// What links send is the node's alone.
fn links_reach_the_node(host: &Plug, links: &[Plug; 2]) {
    // Frames of the beginning may still be under way.
    for (number, link) in links.iter().enumerate() {
        let last = frame(0xff, 50 + number as u8, 60, 9);
        link.send([last.clone()]);
        host.seen.until(&last);
    }
    host.send([frame(0xff, 1, 60, 10), frame(0xff, 1, 60, 10)]);
    for link in links {
        let seen = link.seen.until(&frame(0xff, 1, 60, 10));
        assert!(seen.iter().all(|frame| frame[11] == 1), "only the node is heard: {seen:?}");
    }
}

#[test]
fn multi() {
    for theirs in [false, true] {
        let (_dir, host, links) = trunk("multi", theirs);
        links_reach_the_node(&host, &links);
        let sent: Vec<_> = (0..5).map(|number| frame(9, 1, 100, 20 + number)).collect();
        host.send(sent.clone());
        for link in &links {
            let seen = link.seen.until(&sent[4]);
            assert!(seen.ends_with(&sent), "{seen:?}");
        }
    }
}

#[test]
fn bonding() {
    for theirs in [false, true] {
        let (_dir, host, links) = trunk("bonding", theirs);
        links_reach_the_node(&host, &links);
        let sent: Vec<_> = (0..6).map(|number| frame(9, 1, 100, 20 + number)).collect();
        host.send(sent.clone());
        let mut turns: Vec<_> = links
            .iter()
            .map(|link| {
                let of_now = |seen: &[Vec<u8>]| {
                    seen.iter().filter(|frame| sent.contains(frame)).cloned().collect::<Vec<_>>()
                };
                link.seen.holds("three frames", |seen| of_now(seen).len() == 3);
                of_now(&link.seen.take())
            })
            .collect();
        turns.sort();
        let every_second = |first: usize| sent.iter().skip(first).step_by(2).cloned().collect::<Vec<_>>();
        assert_eq!(turns, [every_second(0), every_second(1)]);
    }
}

#[test]
fn a_link_that_goes_is_not_waited_for() {
    for (scheme, each) in [("multi", 4), ("bonding", 4)] {
        let dir = Dir::new();
        let path = dir.path("trunk");
        let host = Plug::new(&format!("{scheme}://{path}[mode=0600]"));
        // Nobody is there: it is said so.
        host.send([frame(9, 1, 60, 1), frame(9, 1, 60, 2)]);
        let counters = host.link.counters();
        assert_eq!((counters.tx_frames, counters.tx_unreachable), (0, 2));
        let one = Plug::new(&format!("vde://{path}"));
        let other = Plug::new(&format!("vde://{path}[7]"));
        one.reach(&host, &frame(1, 2, 60, 3));
        other.reach(&host, &frame(1, 3, 60, 3));
        other.link.detach();
        wait_until("the port to be free", || std::fs::read_dir(&path).unwrap().count() == 2);
        host.send((0..each).map(|number| frame(9, 1, 60, 10 + number)));
        let seen = one.seen.until(&frame(9, 1, 60, 13));
        assert_eq!(seen.len(), 4);
        host.link.detach();
        one.seen.down();
        assert!(!Path::new(&path).exists());
    }
}

#[test]
fn options_are_those_of_a_switch_in_a_directory() {
    let dir = Dir::new();
    for (options, part) in [
        ("[hub]", "unknown key"),
        ("[mode=9]", "octal"),
        ("[mtu=9217]", "from 68 to 9216"),
        ("[grp=no-such-group]", "a group that this system knows"),
    ] {
        let error = ioth_vde::open(&format!("multi://{}{options}", dir.path("x"))).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let link =
        ioth_vde::open(&format!("bonding://{}[mode=0660/hashsize=9/mtu=9000]", dir.path("x"))).unwrap();
    assert_eq!(link.properties().mtu, 9000);
    // A name without a '/' is a path as well: there is no trunk within a process.
    let error = ioth_vde::open("multi://no/such/place").unwrap_err();
    assert_eq!(error.errno(), ioth_core::Errno::ENOENT, "{error}");
}
