//! IP_RECVERR and IPV6_RECVERR: errors by recvmsg(2) with MSG_ERRQUEUE.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use ioth::berkeley::*;
use ioth::core::control;
use ioth::{Events, MsgFlags, RecvMsg, SockAddr};

use crate::fixture::*;

/// The family's option, which is the type of the message, too.
fn option_of(pair: &Pair) -> (i32, i32) {
    match pair.domain() {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_RECVERR),
        _ => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    }
}

/// An error that was kept.
struct Kept {
    data: Vec<u8>,
    from: Option<SockAddr>,
    control: Vec<u8>,
    flags: MsgFlags,
}

fn kept_error(fd: &Fd) -> io::Result<Kept> {
    let (mut data, mut room) = ([0; 100], [0; 200]);
    let mut slices = [IoSliceMut::new(&mut data)];
    let mut message = RecvMsg { control: &mut room, ..RecvMsg::new(&mut slices) };
    let len = recvmsg(fd.0, &mut message, MsgFlags::ERRQUEUE)?;
    let (from, control_len, flags) = (message.addr, message.control_len, message.flags);
    Ok(Kept { data: data[..len].to_vec(), from, control: room[..control_len].to_vec(), flags })
}

/// Sends to where nobody is, and waits for the word of it.
fn send_into_the_void(pair: &Pair, fd: &Fd) -> SocketAddr {
    let (gone, addr) = pair.udp_b();
    drop(gone);
    sendto(fd.0, b"lost", NONE, addr).unwrap();
    wait(fd, if pair.native { Events::ERR } else { Events::IN });
    addr
}

/// What was sent comes back, with who did not take it and why: also to a socket that is not connected.
pub(crate) fn kept(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (level, name) = option_of(pair);
    set_option(&a, level, name, 1).unwrap();
    assert_eq!(errno(kept_error(&a).map(|_| ())), libc::EAGAIN);
    let to = send_into_the_void(pair, &a);
    let error = kept_error(&a).unwrap();
    assert_eq!((&error.data[..], error.from), (&b"lost"[..], Some(to.into())));
    assert!(error.flags.contains(MsgFlags::ERRQUEUE), "{:?}", error.flags);
    let told = control::messages(&error.control).map(Result::unwrap).find(|message| message.kind == name);
    let told = told.unwrap();
    assert_eq!(told.level, level);
    // struct sock_extended_err: errno, origin, type, code, and two numbers of no meaning here.
    let (origin, kind, code) = if pair.a_addr.is_ipv4() { (2, 3, 3) } else { (3, 1, 4) };
    assert_eq!(told.data[..4], libc::ECONNREFUSED.to_ne_bytes());
    assert_eq!(told.data[4..8], [origin, kind, code, 0]);
    assert_eq!(told.data[8..16], [0; 8]);
    let offender = SockAddr::from_raw(&told.data[16..]).unwrap().as_ip().unwrap();
    assert_eq!((offender.ip(), offender.port()), (pair.b_addr, 0));
    // With it the pending error has gone.
    assert_eq!(errno(kept_error(&a).map(|_| ())), libc::EAGAIN);
    assert_eq!(so_error(&a), 0);
    assert_eq!(events(&a), Events::OUT);
}

/// The error is pending as well; whoever switches the option off has none any more in the queue.
pub(crate) fn pending(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (level, name) = option_of(pair);
    set_option(&a, level, name, 1).unwrap();
    send_into_the_void(pair, &a);
    assert_eq!(errno(read(a.0, &mut [0; 4])), libc::ECONNREFUSED);
    assert_eq!(errno(recv(a.0, &mut [0; 4], MsgFlags::DONTWAIT)), libc::EAGAIN);
    set_option(&a, level, name, 0).unwrap();
    assert_eq!(errno(kept_error(&a).map(|_| ())), libc::EAGAIN);
}
