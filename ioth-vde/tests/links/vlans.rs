//! Frames with tags through a switch in a directory: ours and upstream's, with Debian's plugs.

use std::path::Path;

use crate::plug::{Dir, Plug, frame, wait_until};

/// A node's end of a switch and two of Debian's plugs, all three able to send and known without a tag.
fn switch(theirs: bool) -> (Dir, Plug, [Plug; 2]) {
    let dir = Dir::new();
    let path = dir.path("switch");
    let host = Plug::new(&if theirs {
        format!("cmd://vde_plug switch://{path}")
    } else {
        format!("switch://{path}")
    });
    wait_until("the switch's socket", || Path::new(&path).join("ctl").exists());
    let plugs = [2, 3].map(|number| {
        let plug = Plug::new(&format!("cmd://vde_plug vde://{path}"));
        // What is sent before the switch knows the plug is lost.
        plug.reach(&host, &frame(1, number, 60, 0));
        plug
    });
    (dir, host, plugs)
}

fn tagged(to: u8, from: u8, control: u16, number: u32) -> Vec<u8> {
    let mut frame = frame(to, from, 80, number);
    frame[12..14].copy_from_slice(&[0x81, 0]);
    frame[14..16].copy_from_slice(&control.to_be_bytes());
    frame[18..22].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn tags_pass_as_they_are_and_stations_are_known_by_vlan() {
    for theirs in [false, true] {
        let (_dir, host, [one, other]) = switch(theirs);
        // The last is a priority without a VLAN: its tag stays, too.
        for (number, control) in [5, 0x400, 0xa000].into_iter().enumerate() {
            let number = 10 * (number as u32 + 1);
            let first = tagged(3, 2, control, number);
            one.send([first.clone()]);
            other.seen.until(&first);
            // A station that has spoken with this tag is known by it; in VLAN 5 nobody else has spoken.
            host.seen.holds("the frame", |seen| control != 5 || seen.contains(&first));
            let answer = tagged(2, 3, control, number + 1);
            other.send([answer.clone()]);
            one.seen.until(&answer);
            let direct = tagged(3, 2, control, number + 2);
            one.send([direct.clone()]);
            other.seen.until(&direct);
            let last = tagged(0xff, 2, control, number + 3);
            one.send([last.clone()]);
            other.seen.until(&last);
            let seen = host.seen.until(&last);
            assert!(!seen.contains(&answer) && !seen.contains(&direct), "{theirs} {control:#x}: {seen:?}");
        }
        assert_eq!(host.link.counters().tx_unreachable, 0);
    }
}

#[test]
fn nodes_in_a_vlan_of_each_hear_each_other_and_nobody_else() {
    for theirs in [false, true] {
        let (dir, host, _plugs) = switch(theirs);
        let nodes = [(); 2].map(|()| Plug::new(&format!("vlan://3{{vde://{}}}", dir.path("switch"))));
        nodes[0].exchange(&nodes[1], 1514);
        host.seen.holds("a tagged frame", |seen| seen.iter().any(|frame| frame[12..16] == [0x81, 0, 0, 3]));
    }
}

#[test]
fn what_the_switch_loses_its_owner_is_told() {
    let dir = Dir::new();
    let path = dir.path("switch");
    let host = Plug::new(&format!("switch://{path}"));
    let plug = Plug::new(&format!("vde://{path}"));
    plug.reach(&host, &frame(1, 2, 60, 0));
    // The owner sends to its own address.
    host.send([frame(9, 1, 60, 1), frame(1, 1, 60, 2)]);
    assert_eq!(host.link.counters().tx_unreachable, 1);
    host.link.detach();
    assert_eq!(host.link.counters().tx_unreachable, 1);
}
