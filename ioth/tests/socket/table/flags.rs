//! Flags of send(2) and recv(2): each bit, on each kind of socket.

use std::io::{IoSlice, IoSliceMut};

use ioth::berkeley::*;
use ioth::{MsgFlags, RecvMsg, SendMsg};

use super::kinds::{Scene, grouped, scenes};
use super::{Row, row, said, said_number};
use crate::fixture::*;

/// sys/socket.h and linux/socket.h, by their bits; the others have no name.
const NAMES: [(u32, &str); 25] = [
    (0, "OOB"),
    (1, "PEEK"),
    (2, "DONTROUTE"),
    (3, "CTRUNC"),
    (4, "PROXY"),
    (5, "TRUNC"),
    (6, "DONTWAIT"),
    (7, "EOR"),
    (8, "WAITALL"),
    (9, "FIN"),
    (10, "SYN"),
    (11, "CONFIRM"),
    (12, "RST"),
    (13, "ERRQUEUE"),
    (14, "NOSIGNAL"),
    (15, "MORE"),
    (16, "WAITFORONE"),
    (17, "SENDPAGE_NOPOLICY"),
    (18, "BATCH"),
    (19, "NO_SHARED_FRAGS"),
    (20, "SENDPAGE_DECRYPTED"),
    (25, "SOCK_DEVMEM"),
    (26, "ZEROCOPY"),
    (29, "FASTOPEN"),
    (30, "CMSG_CLOEXEC"),
];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("recv of 2 bytes of 4", |pair| receive_all(pair, 0), ""),
        row("send", |pair| send_all(pair, 0), ""),
    ];
    for bit in 0..31 {
        let name = NAMES.iter().find(|(named, _)| *named == bit);
        let name = name.map_or_else(|| format!("flag {:#x}", 1 << bit), |(_, name)| format!("MSG_{name}"));
        let flag = 1 << bit;
        let remark = if flag == libc::MSG_NOSIGNAL { "never refused, for it is always on" } else { "" };
        rows.push(row(format!("recv of 2 bytes of 4, {name}"), move |pair| receive_all(pair, flag), remark));
        rows.push(row(format!("send, {name}"), move |pair| send_all(pair, flag), ""));
    }
    rows.push(row(
        "send, MSG_FASTOPEN, of a fresh stream",
        |pair| {
            let (_listener, addr) = pair.listener();
            said(sendto(pair.tcp_a().0, b"x", MsgFlags::from_bits_retain(libc::MSG_FASTOPEN), addr))
        },
        "as with net.ipv4.tcp_fastopen = 0",
    ));
    rows
}

fn flags(flag: i32) -> MsgFlags {
    MsgFlags::from_bits_retain(flag) | MsgFlags::DONTWAIT
}

fn receive_all(pair: &Pair, flag: i32) -> String {
    grouped(scenes(pair).iter().map(|scene| (scene.word, receive(scene, flag))))
}

/// Such as "2, told TRUNC; gone".
fn receive(scene: &Scene<'_>, flag: i32) -> String {
    (scene.fill)();
    let mut data = [0; 2];
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg::new(&mut slices);
    let received = recvmsg(scene.fd.0, &mut message, flags(flag));
    let told = message.flags;
    let outcome = match received {
        Ok(len) if len > 2 => "its length".to_owned(),
        other => said_number(other),
    };
    let told = if told.is_empty() { String::new() } else { format!(", told {told:?}") };
    // What a header adds to is not counted.
    let rest = match (scene.word, &scene.drain()[..]) {
        (_, []) => "gone".to_owned(),
        ("stream", rest) => format!("{} left", rest.iter().sum::<usize>()),
        (_, rest) => format!("{} left", rest.len()),
    };
    format!("{outcome}{told}; {rest}")
}

fn send_all(pair: &Pair, flag: i32) -> String {
    grouped(scenes(pair).iter().map(|scene| (scene.word, send_one(scene, flag))))
}

fn send_one(scene: &Scene<'_>, flag: i32) -> String {
    let message = SendMsg { data: &[IoSlice::new(&scene.message)], addr: scene.to.as_ref(), control: &[] };
    match sendmsg(scene.fd.0, &message, flags(flag)) {
        Ok(len) if len == scene.message.len() => "all".to_owned(),
        other => said_number(other),
    }
}
