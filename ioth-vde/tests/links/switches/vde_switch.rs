//! Debian's vde_switch is the judge of `vde://`.

use std::time::{Duration, Instant};

use ioth_core::Errno;
use ioth_vde::{Batch, Frame, LinkError, open};

use super::{Switch, introduce};
use crate::plug::{PATIENCE, Plug, frame, wait_until};

#[test]
fn frames_go_both_ways_by_either_data_socket() {
    let switch = Switch::start(8);
    for (options, user) in [("[data=abstract]", "NONE"), ("[data=path]", "root")] {
        let [a, b] = [(); 2].map(|()| switch.open(options));
        introduce(&a, &[&b], 1);
        introduce(&b, &[&a], 2);
        a.send([frame(2, 1, 14, 0), frame(2, 1, 1514, 1)]);
        assert_eq!(b.seen.frames(2), [frame(2, 1, 14, 0), frame(2, 1, 1514, 1)]);
        b.send([frame(1, 2, 60, 2)]);
        assert_eq!(a.seen.frames(1), [frame(1, 2, 60, 2)]);

        let ports = switch.command("port/print");
        let me = format!(" user={} pid={}", nix::unistd::geteuid(), std::process::id());
        assert_eq!(ports.matches(&me).count(), 2, "{ports}");
        if nix::unistd::geteuid().is_root() {
            assert!(ports.contains(user) || ports.contains(&user.to_lowercase()), "{ports}");
        }
        // No name is left behind.
        let left: Vec<_> = std::fs::read_dir(switch.dir.join("sw"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?}");

        let counters = a.link.counters();
        assert_eq!((counters.tx_frames, counters.rx_frames), (3, 2));
        // Both ports are given back.
        a.link.detach();
        drop(b);
        wait_until("free ports", || !switch.command("port/print").contains("ioth:links"));
    }
}

#[test]
fn ports_by_number() {
    let switch = Switch::start(8);
    let a = switch.open("[5]");
    assert!(switch.command("port/print 5").contains("ioth:links"));
    drop(a);
    let _b = switch.open("[port=0]");
    assert!(switch.command("port/print 0").contains("ioth:links"));
    // Who says who it is, and who tries to say more than that.
    let _named = switch.open("[6/descr=web server]");
    assert!(switch.command("port/print 6").contains(": web server user="));
    let _long = switch.open(&format!("[7/descr=%1b[2J{}]", "\u{e9}".repeat(100)));
    let shown = switch.command("port/print 7");
    assert!(
        shown.contains("?[2J\u{e9}") && shown.contains("\u{e9} user=") && shown.contains(" pid="),
        "{shown}"
    );
    let error = open(&switch.vnl("[portgroup=nobody]")).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT, "{error}");
}

#[test]
fn a_full_switch_times_out() {
    let switch = Switch::start(2);
    let _only = switch.open("");
    let start = Instant::now();
    let error = open(&switch.vnl("")).unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    assert!(error.to_string().contains("no free port"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(1900) && start.elapsed() < PATIENCE);
}

#[test]
fn a_switch_that_dies_is_noticed() {
    let mut switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    introduce(&a, &[&b], 1);
    switch.stop();
    for plug in [&a, &b] {
        let cause = plug.seen.down();
        assert_eq!(cause, LinkError::Gone(switch.vnl("")));
    }
    let mut batch: Batch = [Frame::copy_of(&frame(2, 1, 60, 0))].into();
    assert_eq!(a.link.send(&mut batch), Err(LinkError::Gone(switch.vnl(""))));
    assert!(batch.is_empty());
    assert_eq!(a.link.counters().tx_down, 1);
}

#[test]
fn a_stream_of_batches_loses_nothing() {
    // The switch drops what its reader does not take at once, and its queue has the system's default
    // length: 93 frames where that is 208 KiB.
    const WINDOW: u32 = 64;
    const FRAMES: u32 = 300 * WINDOW;
    let switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    introduce(&a, &[&b], 1);
    introduce(&b, &[&a], 2);
    let number = |number: u32| frame(2, 1, 60 + number as usize % 1400, number);
    for from in (0..FRAMES).step_by(WINDOW as usize) {
        let window: Vec<_> = (from..from + WINDOW).map(number).collect();
        a.send(window.clone());
        assert_eq!(b.seen.frames(WINDOW as usize), window);
    }
    assert_eq!(a.link.counters().tx_frames, u64::from(FRAMES) + 1);
    assert_eq!(b.link.counters().rx_frames, u64::from(FRAMES) + 1);
}

#[test]
fn a_stopped_switch_pushes_back() {
    const FRAMES: u32 = 5000;
    let switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    introduce(&a, &[&b], 1);
    introduce(&b, &[&a], 2);
    let pid = nix::unistd::Pid::from_raw(switch.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
    let mut batch: Batch = (0..FRAMES).map(|number| Frame::copy_of(&frame(2, 1, 1514, number))).collect();
    a.link.send(&mut batch).unwrap();
    let left = batch.len() as u32;
    assert!(left > 0 && left < FRAMES, "{left} of {FRAMES} frames left");
    assert_eq!(batch[0][..18], frame(2, 1, 18, FRAMES - left));
    // Without room there is no event.
    assert!(!a.seen.may_send());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).unwrap();
    a.send(batch.drain(..).map(|frame| frame.to_vec()));
    // The switch got all of them, and the one that introduced us.
    let all = format!("IN: pkts {}", FRAMES + 1);
    let squeeze = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    wait_until("all frames in the switch", || squeeze(switch.command("port/print 1")).contains(&all));
}

#[test]
fn what_the_switch_would_cut_is_not_sent() {
    let switch = Switch::start(4);
    let [a, b] = [(); 2].map(|()| switch.open(""));
    a.send([frame(0xff, 1, 1515, 0), frame(0xff, 1, 1519, 0), vec![0; 13]]);
    a.send([frame(0xff, 1, 60, 7)]);
    assert_eq!(b.seen.frames(1), [frame(0xff, 1, 60, 7)]);
    let counters = a.link.counters();
    assert_eq!((counters.tx_bad_length, counters.tx_frames), (3, 1));
}

#[test]
fn a_tagged_port_by_vlan() {
    let switch = Switch::start(8);
    for command in ["vlan/create 20", "vlan/create 30"] {
        switch.command(command);
    }
    let vnl = |port: u32| switch.vnl(&format!("[{port}]"));
    let stranger = Plug::new(&vnl(5));
    let access = Plug::new(&vnl(4));
    switch.command("port/setvlan 4 20");
    let tagged = Plug::new(&format!("vlan://20[tag=3-30]{{{}}}", vnl(3)));
    for command in ["port/setvlan 3 4095", "vlan/addport 20 3", "vlan/addport 30 3"] {
        switch.command(command);
    }
    introduce(&tagged, &[&access], 1);
    introduce(&access, &[&tagged], 2);
    tagged.send([frame(2, 1, 60, 1), frame(2, 1, 1514, 2)]);
    assert_eq!(access.seen.frames(2), [frame(2, 1, 60, 1), frame(2, 1, 1514, 2)]);
    access.send([frame(1, 2, 1514, 3)]);
    assert_eq!(tagged.seen.frames(1), [frame(1, 2, 1514, 3)]);
    // The node's VLAN 3 is the network's 30, where another port goes.
    switch.command("port/setvlan 4 30");
    access.send([frame(0xff, 2, 60, 4)]);
    let mut third = frame(0xff, 2, 60, 4);
    third.splice(12..12, [0x81, 0, 0, 3]);
    assert_eq!(tagged.seen.frames(1), [third]);
    assert_eq!(stranger.link.counters().rx_frames, 0);
}
