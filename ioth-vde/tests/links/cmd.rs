//! `cmd://`.

use std::path::Path;

use ioth_core::Errno;
use ioth_vde::{Batch, Frame, LinkError};

use crate::plug::{Dir, Plug, frame, wait_until};

#[test]
fn frames_come_back_from_cat() {
    let plug = Plug::new("cmd://cat");
    let sent: Vec<_> = (0..5000).map(|number| frame(2, 1, 14 + number as usize % 1501, number)).collect();
    plug.send(sent.clone());
    assert_eq!(plug.seen.frames(sent.len()), sent);
    let counters = plug.link.counters();
    assert_eq!((counters.tx_frames, counters.rx_frames), (5000, 5000));
    assert_eq!((counters.tx_bytes, counters.rx_bad_length), (counters.rx_bytes, 0));
}

#[test]
fn a_command_that_reads_nothing_pushes_back() {
    let plug = Plug::new("cmd://sleep 1000");
    let mut batch: Batch = (0..5000).map(|number| Frame::copy_of(&frame(2, 1, 1514, number))).collect();
    plug.link.send(&mut batch).unwrap();
    let left = batch.len();
    assert!(left > 1000 && left < 5000, "{left} frames left");
    plug.link.send(&mut batch).unwrap();
    assert_eq!(batch.len(), left);
    plug.link.detach();
    assert_eq!(plug.link.send(&mut batch), Err(LinkError::Detached));
    assert_eq!(plug.link.counters().tx_down, left as u64);
}

#[test]
fn the_network_is_gone_when_the_command_ends() {
    for (command, why) in [
        ("sh -c 'exit 3'", "the command ended (exit status: 3)"),
        ("sh -c 'kill -KILL $$'", "the command ended (signal: 9 (SIGKILL))"),
        // Its child holds the standard output on.
        ("sh -c 'sleep 2 & exit 0'", "the command ended (exit status: 0)"),
    ] {
        let vnl = format!("cmd://{command}");
        let plug = Plug::new(&vnl);
        let cause = plug.seen.down();
        assert!(cause.to_string().starts_with(&vnl), "{cause}");
        assert!(cause.to_string().contains(why), "{cause}");
        let mut batch: Batch = [Frame::copy_of(&frame(2, 1, 60, 0))].into();
        assert_eq!(plug.link.send(&mut batch).unwrap_err().errno(), Errno::ENETDOWN);
        assert!(batch.is_empty());
    }
}

#[test]
fn its_last_words_are_heard() {
    let plug = Plug::new(r#"cmd://sh -c 'printf "\000\017last words here"'"#);
    plug.seen.down();
    assert_eq!(plug.seen.frames(1), [b"last words here"]);
}

#[test]
fn what_is_no_stream_of_frames_ends_the_link() {
    let plug = Plug::new("cmd://sh -c 'echo hello; exec sleep 1000'");
    assert!(matches!(plug.seen.down(), LinkError::Gone(_)));
    let counters = plug.link.counters();
    assert_eq!((counters.rx_bad_length, counters.rx_frames), (1, 0));
}

#[test]
fn nothing_is_left_of_a_command() {
    let dir = Dir::new();
    for (name, command) in [
        ("meek", "exec sleep 1000"),
        // It wants to live: SIGTERM is not enough, nor is the end of its input.
        ("stubborn", "trap '' TERM; exec sleep 1000"),
    ] {
        let file = dir.path(name);
        let plug =
            Plug::new(&format!("cmd://sh -c \"echo $$ >{file}.new; mv {file}.new {file}; {command}\""));
        wait_until("file with the command's number", || Path::new(&file).exists());
        let process = format!("/proc/{}", std::fs::read_to_string(&file).unwrap().trim());
        assert!(Path::new(&process).exists());
        drop(plug);
        // Not even a zombie.
        wait_until("end of the command", || !Path::new(&process).exists());
    }
}

#[test]
fn the_first_word_may_be_an_mtu() {
    for (vnl, mtu) in [("cmd://cat", 1500), ("cmd://mtu=9000 cat", 9000), ("cmd://mtu=9k cat", 9216)] {
        assert_eq!(ioth_vde::open(vnl).unwrap().properties().mtu, mtu, "{vnl}");
    }
    let widest = ioth_vde::Schemes::builtin().widest();
    for (vnl, mtu) in [("cmd://cat", 9216), ("restart://{cmd://cat}", 9216), ("cmd://mtu=1500 cat", 1500)] {
        assert_eq!(widest.open(vnl).unwrap().properties().mtu, mtu, "{vnl}");
    }
    for (vnl, part) in
        [("cmd://mtu=67 cat", "from 68"), ("cmd://mtu= cat", "from 68"), ("cmd://mtu=9000", "no command")]
    {
        let error = ioth_vde::open(vnl).unwrap_err();
        assert!(error.to_string().contains(part), "{vnl}: {error}");
    }
}
