//! ioctl(2), on each kind of socket.

use ioth::berkeley::ioctl;
use ioth_kernel::calls;

use super::kinds::{grouped, of_each, scenes};
use super::{Row, row, said, said_number, sys};
use crate::fixture::*;
use crate::ioctl::{device, ifreq};

/// Those that give a number, or change nothing. asm-generic/sockios.h, linux/sockios.h
const NUMBERS: &[(&str, u64)] = &[
    ("FIONREAD", libc::FIONREAD as _),
    ("SIOCOUTQ", libc::TIOCOUTQ as _),
    ("SIOCOUTQNSD", 0x894b),
    ("SIOCATMARK", 0x8905),
    ("FIOGETOWN", 0x8903),
    ("SIOCGPGRP", 0x8904),
];
const STAMPS: &[(&str, u64)] = &[("SIOCGSTAMP", 0x8906), ("SIOCGSTAMPNS", 0x8907)];

/// Those about an interface: asked for, with the device's name and with that of none.
const ASKED: &[(&str, u64)] = &[
    ("SIOCGIFFLAGS", libc::SIOCGIFFLAGS),
    ("SIOCGIFADDR", libc::SIOCGIFADDR),
    ("SIOCGIFDSTADDR", libc::SIOCGIFDSTADDR),
    ("SIOCGIFBRDADDR", libc::SIOCGIFBRDADDR),
    ("SIOCGIFNETMASK", libc::SIOCGIFNETMASK),
    ("SIOCGIFMETRIC", libc::SIOCGIFMETRIC),
    ("SIOCGIFMEM", libc::SIOCGIFMEM),
    ("SIOCGIFMTU", libc::SIOCGIFMTU),
    ("SIOCGIFENCAP", libc::SIOCGIFENCAP),
    ("SIOCGIFHWADDR", libc::SIOCGIFHWADDR),
    ("SIOCGIFSLAVE", libc::SIOCGIFSLAVE),
    ("SIOCGIFINDEX", libc::SIOCGIFINDEX),
    ("SIOCGIFPFLAGS", libc::SIOCGIFPFLAGS),
    ("SIOCGIFCOUNT", libc::SIOCGIFCOUNT),
    ("SIOCGIFTXQLEN", libc::SIOCGIFTXQLEN),
    ("SIOCGIFMAP", libc::SIOCGIFMAP),
];

/// Those that change an interface: only the name of none is tried.
const SET: &[(&str, u64)] = &[
    ("SIOCSIFLINK", 0x8911),
    ("SIOCSIFFLAGS", libc::SIOCSIFFLAGS),
    ("SIOCSIFADDR", libc::SIOCSIFADDR),
    ("SIOCSIFDSTADDR", libc::SIOCSIFDSTADDR),
    ("SIOCSIFBRDADDR", libc::SIOCSIFBRDADDR),
    ("SIOCSIFNETMASK", libc::SIOCSIFNETMASK),
    ("SIOCSIFMETRIC", libc::SIOCSIFMETRIC),
    ("SIOCSIFMEM", libc::SIOCSIFMEM),
    ("SIOCSIFMTU", libc::SIOCSIFMTU),
    ("SIOCSIFNAME", libc::SIOCSIFNAME),
    ("SIOCSIFHWADDR", libc::SIOCSIFHWADDR),
    ("SIOCSIFENCAP", libc::SIOCSIFENCAP),
    ("SIOCSIFSLAVE", libc::SIOCSIFSLAVE),
    ("SIOCADDMULTI", libc::SIOCADDMULTI),
    ("SIOCDELMULTI", libc::SIOCDELMULTI),
    ("SIOCSIFPFLAGS", libc::SIOCSIFPFLAGS),
    ("SIOCDIFADDR", libc::SIOCDIFADDR),
    ("SIOCSIFTXQLEN", libc::SIOCSIFTXQLEN),
    ("SIOCSIFMAP", libc::SIOCSIFMAP),
    ("SIOCGMIIPHY", libc::SIOCGMIIPHY),
    ("SIOCGMIIREG", libc::SIOCGMIIREG),
];

/// Those of ARP, for an address of no neighbour's; and such as there are not.
const OTHERS: &[(&str, u64)] = &[
    ("SIOCGARP", libc::SIOCGARP),
    ("SIOCDARP", libc::SIOCDARP),
    ("SIOCGRARP", 0x8961),
    ("TCGETS", libc::TCGETS as _),
    ("request 0", 0),
    ("request 0x89ef", 0x89ef),
    ("request 0x12345678", 0x1234_5678),
];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for &(name, request) in NUMBERS {
        let probe = move |pair: &Pair| {
            let fresh = of_each(pair, |fd| number(pair, fd, request));
            let filled = scenes(pair).into_iter().map(|scene| {
                (scene.fill)();
                (scene.word, number(pair, &scene.fd, request))
            });
            match name {
                // Of a packet it is the length, with headers of the stack's choice.
                "FIONREAD" => format!(
                    "{fresh}<br>with data: {}",
                    grouped(filled.filter(|(word, _)| *word != "netlink"))
                ),
                "SIOCOUTQ" | "SIOCOUTQNSD" => fresh,
                _ => format!("{fresh}<br>with data: {}", grouped(filled)),
            }
        };
        rows.push(row(name, probe, ""));
    }
    for &(name, request) in STAMPS {
        let probe = move |pair: &Pair| {
            let fresh = of_each(pair, |fd| said(ask(pair, fd, request, &mut [0; 256])));
            let read = scenes(pair).into_iter().map(|scene| {
                (scene.fill)();
                scene.drain();
                (scene.word, said(ask(pair, &scene.fd, request, &mut [0; 256])))
            });
            format!("{fresh}<br>when something was received: {}", grouped(read))
        };
        rows.push(row(name, probe, ""));
    }
    rows.push(row(
        "FIONBIO",
        |pair| of_each(pair, |fd| said(ioctl(fd.0, libc::FIONBIO as _, &mut [1, 0, 0, 0]))),
        "",
    ));
    rows.push(row("SIOCGIFNAME of an interface, of none", name_of, ""));
    for &(name, request) in ASKED {
        let probe = move |pair: &Pair| {
            let (_, device, _) = device(pair);
            of_each(pair, |fd| {
                let of = |name: &str| said(ask(pair, fd, request, &mut named(name)));
                format!("{}, {}", of(&device), of("none0"))
            })
        };
        rows.push(row(format!("{name} of an interface, of none"), probe, ""));
    }
    for &(name, request) in SET {
        let probe = move |pair: &Pair| of_each(pair, |fd| said(ask(pair, fd, request, &mut named("none0"))));
        rows.push(row(format!("{name} of no interface"), probe, ""));
    }
    for &(name, request) in OTHERS {
        let probe = move |pair: &Pair| of_each(pair, |fd| said(ask(pair, fd, request, &mut arp())));
        rows.push(row(name, probe, "not there: `ENOTTY`"));
    }
    rows
}

fn name_of(pair: &Pair) -> String {
    let (_, _, index) = device(pair);
    of_each(pair, |fd| {
        let of = |index: u32| {
            let mut request = [0; 256];
            request[16..20].copy_from_slice(&index.to_ne_bytes());
            said(ask(pair, fd, libc::SIOCGIFNAME, &mut request))
        };
        format!("{}, {}", of(index), of(99))
    })
}

/// The kernel is asked itself: the calls of this project know only requests that they pass on.
fn ask(pair: &Pair, fd: &Fd, request: u64, argument: &mut [u8; 256]) -> std::io::Result<i32> {
    if pair.native {
        return calls::with_number(fd.0, |fd| Ok(sys::request(fd, request, argument)))?;
    }
    ioctl(fd.0, request, argument)
}

fn number(pair: &Pair, fd: &Fd, request: u64) -> String {
    let mut argument = [0; 256];
    let answer = ask(pair, fd, request, &mut argument);
    said_number(answer.map(|_| i32::from_ne_bytes([argument[0], argument[1], argument[2], argument[3]])))
}

fn named(name: &str) -> [u8; 256] {
    let mut request = [0; 256];
    request[..40].copy_from_slice(&ifreq(name, &[]));
    request
}

/// A `struct arpreq` of an address that is nobody's.
fn arp() -> [u8; 256] {
    let mut request = [0; 256];
    request[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    request[4..8].copy_from_slice(&[10, 9, 0, 99]);
    request
}
