//! Control messages: every type of the levels that sockets look at, sent in several lengths; and what each option has told of what is
//! received.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};

use ioth::berkeley::*;
use ioth::core::control;
use ioth::{MsgFlags, RecvMsg, SendMsg};

use super::kinds::{Scene, grouped, scenes};
use super::{Row, row, said};
use crate::fixture::*;

const LEVELS: [(&str, i32); 6] = [
    ("SOL_SOCKET", libc::SOL_SOCKET),
    ("IPPROTO_IP", libc::IPPROTO_IP),
    ("IPPROTO_IPV6", libc::IPPROTO_IPV6),
    ("IPPROTO_TCP", libc::IPPROTO_TCP),
    ("IPPROTO_UDP", libc::IPPROTO_UDP),
    ("level 9999", 9999),
];

/// Types from here on are not known to anybody.
const END: i32 = 90;

/// Bytes of data that are tried: those of flags, ints, addresses and structures, and some between.
const LENGTHS: [usize; 9] = [0, 1, 2, 4, 8, 12, 16, 20, 40];

const NOT_THERE: &str = "see \"Calls\" and \"Options that are not there\"";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (label, level) in LEVELS {
        let sent =
            move |pair: &Pair| grouped(scenes(pair).iter().map(|scene| (scene.word, sends(scene, level))));
        rows.push(row(format!("sendmsg with messages of {label}"), sent, NOT_THERE));
    }
    rows.push(row("sendmsg with a malformed message", malformed, ""));
    for (label, level, names) in ASKED {
        let told = move |pair: &Pair| {
            let scenes = scenes(pair).into_iter();
            // The kernel begins to stamp segments a while after somebody asked for it: `control` waits for that.
            let scenes = scenes.filter(|scene| level != libc::SOL_SOCKET || scene.word != "stream");
            grouped(scenes.map(|scene| (scene.word, tells(&scene, level, names))))
        };
        rows.push(row(format!("recvmsg, by options of {label}"), told, NOT_THERE));
    }
    rows
}

fn say(scene: &Scene<'_>, control: &[u8]) -> String {
    let message = SendMsg { data: &[IoSlice::new(&scene.message)], addr: scene.to.as_ref(), control };
    said(sendmsg(scene.fd.0, &message, MsgFlags::DONTWAIT))
}

/// Such as "EINVAL, but ok: 1 (4), 2 (1 to 4)": types, and of what length they are as the answer says. All their bytes are 0.
fn sends(scene: &Scene<'_>, level: i32) -> String {
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in 0..END {
        let mut lengths: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for length in LENGTHS {
            let mut message = Vec::new();
            control::push(&mut message, level, kind, &vec![0; length]);
            lengths.entry(say(scene, &message)).or_default().push(length);
            scene.drain();
        }
        for (answer, of) in lengths {
            let of = match of.len() {
                all if all == LENGTHS.len() => String::new(),
                _ => format!(" ({})", of.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")),
            };
            answers.entry(answer).or_default().push(format!("{kind}{of}"));
        }
    }
    let usual = answers.iter().max_by_key(|(_, kinds)| kinds.len()).map(|(answer, _)| answer.clone());
    let usual = usual.unwrap_or_default();
    let others = answers.iter().filter(|(answer, _)| **answer != usual);
    let others: Vec<_> = others.map(|(answer, kinds)| format!("{answer}: {}", kinds.join(", "))).collect();
    if others.is_empty() { usual } else { format!("{usual}, but {}", others.join("; ")) }
}

/// Lengths in the header that cannot be, and room that is too short for one.
fn malformed(pair: &Pair) -> String {
    let with = |scene: &Scene<'_>, length: usize| {
        let mut message = Vec::new();
        control::push(&mut message, libc::IPPROTO_TCP, 99, &[0; 4]);
        message[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
        say(scene, &message)
    };
    grouped(scenes(pair).iter().map(|scene| {
        let answers = [0, 1, 15, 16, 21, 1000].map(|length| with(scene, length));
        scene.drain();
        (scene.word, format!("{}; 8 bytes of one: {}", answers.join(", "), say(scene, &[0; 8])))
    }))
}

/// Options that ask for messages, by their levels; what others there are is told without being asked.
const ASKED: [(&str, i32, &[i32]); 6] = [
    ("SOL_SOCKET", libc::SOL_SOCKET, &[29, 35, 37, 40, 41, 63, 64, 65, 75, 82]),
    ("IPPROTO_IP", libc::IPPROTO_IP, &[6, 7, 8, 12, 13, 18, 20, 23, 25]),
    ("IPPROTO_IPV6", libc::IPPROTO_IPV6, &[2, 3, 4, 5, 8, 11, 49, 51, 53, 56, 58, 60, 66, 74, 77]),
    ("IPPROTO_TCP", libc::IPPROTO_TCP, &[36]),
    ("IPPROTO_UDP", libc::IPPROTO_UDP, &[104]),
    ("SOL_PACKET", libc::SOL_PACKET, &[8, 9]),
];

/// Such as "29: 1/29 of 16": the option that was set, and the messages that then come: level, type, and length of the data.
fn tells(scene: &Scene<'_>, level: i32, names: &[i32]) -> String {
    let mut told = Vec::new();
    for &name in names {
        if set_option(&scene.fd, level, name, 1).is_err() {
            continue;
        }
        (scene.fill)();
        let messages = receive(scene);
        scene.drain();
        if !messages.is_empty() {
            told.push(format!("{name}: {messages}"));
        }
        let _ = set_option(&scene.fd, level, name, 0);
    }
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

fn receive(scene: &Scene<'_>) -> String {
    let (mut data, mut control) = ([0; 4096], [0; 512]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut control, ..RecvMsg::new(&mut slices) };
    if let Err(error) = recvmsg(scene.fd.0, &mut message, MsgFlags::DONTWAIT) {
        return said::<()>(Err(error));
    }
    let length = message.control_len;
    let messages = control::messages(&control[..length]).map(|message| {
        let message = message.unwrap();
        format!("{}/{} of {}", message.level, message.kind, message.data.len())
    });
    messages.collect::<Vec<_>>().join(" + ")
}
