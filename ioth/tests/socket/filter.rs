//! Classic BPF programs on sockets (SO_ATTACH_FILTER, socket(7)).

use ioth::MsgFlags;
use ioth::berkeley::*;

use crate::fixture::*;

/// `struct sock_filter`
pub(crate) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = ((code as u16).to_ne_bytes(), k.to_ne_bytes());
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

pub(crate) fn load_half(at: i32) -> [u8; 8] {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, at as u32)
}

pub(crate) fn load_byte(at: i32) -> [u8; 8] {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at as u32)
}

/// Goes on if the accumulator is `k`, else passes `jf` instructions over.
pub(crate) fn unless_equal(k: u32, jf: u8) -> [u8; 8] {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, jf, k)
}

pub(crate) fn ret(k: u32) -> [u8; 8] {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k)
}

pub(crate) fn attach(fd: &Fd, program: &[[u8; 8]]) -> std::io::Result<()> {
    setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program.concat())
}

pub(crate) fn detach(fd: &Fd) -> std::io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
}

/// A UDP socket's filter sees the datagram from its header on.
pub(crate) fn of_datagrams(pair: &Pair) {
    let (a, _) = pair.udp_a();
    let (b, to) = pair.udp_b();
    attach(&b, &[load_byte(8), unless_equal(b'y'.into(), 1), ret(u32::MAX), ret(0)]).unwrap();
    let mut buffer = [0; 100];
    for text in ["no", "yes", "never", "", "yet"] {
        sendto(a.0, text.as_bytes(), NONE, to).unwrap();
    }
    for text in ["yes", "yet"] {
        assert_eq!(recv(b.0, &mut buffer, NONE).unwrap(), 3);
        assert_eq!(&buffer[..3], text.as_bytes());
    }
    assert_eq!(errno(recv(b.0, &mut buffer, MsgFlags::DONTWAIT)), libc::EAGAIN);
    // What it gives is the length with the header, which is never cut.
    for (keep, len) in [(8 + 5, 5), (8, 0), (3, 0), (100, 10)] {
        attach(&b, &[ret(keep)]).unwrap();
        sendto(a.0, b"0123456789", NONE, to).unwrap();
        assert_eq!(recv(b.0, &mut buffer, MsgFlags::TRUNC).unwrap(), len, "{keep}");
    }
    // The IP header is in reach.
    let version = [load_byte(libc::SKF_NET_OFF), instruction(libc::BPF_ALU | libc::BPF_RSH, 0, 0, 4)];
    let number = if pair.a_addr.is_ipv4() { 4 } else { 6 };
    attach(&b, &[version[0], version[1], unless_equal(number, 1), ret(100), ret(0)]).unwrap();
    sendto(a.0, b"v", NONE, to).unwrap();
    assert_eq!(recv(b.0, &mut buffer, NONE).unwrap(), 1);
    detach(&b).unwrap();
    sendto(a.0, b"anything", NONE, to).unwrap();
    assert_eq!(recv(b.0, &mut buffer, NONE).unwrap(), 8);
}

pub(crate) fn attached_and_locked(pair: &Pair) {
    let (fd, _) = pair.udp_a();
    let get = |room: usize| {
        let mut value = vec![0; room];
        let len = getsockopt(fd.0, libc::SOL_SOCKET, libc::SO_GET_FILTER, &mut value)?;
        value.truncate(len);
        Ok::<_, std::io::Error>((len, value))
    };
    assert_eq!(errno(detach(&fd)), libc::ENOENT);
    assert_eq!(get(80).unwrap().0, 0);
    let program = [load_half(2), ret(7)];
    attach(&fd, &program).unwrap();
    assert_eq!(get(0).unwrap().0, 16);
    assert_eq!(errno(get(8)), libc::EINVAL);
    assert_eq!(get(80).unwrap(), (16, program.concat()));
    // Another one takes its place, a bad one does not.
    attach(&fd, &[ret(9)]).unwrap();
    for bad in [
        vec![],
        vec![load_half(0)],
        vec![instruction(0xffff, 0, 0, 0), ret(0)],
        vec![unless_equal(0, 9), ret(0)],
        vec![instruction(libc::BPF_ALU | libc::BPF_DIV, 0, 0, 0), ret(0)],
        vec![instruction(libc::BPF_LD | libc::BPF_MEM, 0, 0, 1), ret(0)],
        vec![load_half(libc::SKF_AD_OFF + 3), ret(0)],
        vec![ret(0); 4097],
    ] {
        assert_eq!(errno(attach(&fd, &bad)), libc::EINVAL, "{bad:?}");
    }
    assert_eq!(errno(setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &[6; 7])), libc::EINVAL);
    assert_eq!(get(80).unwrap(), (8, ret(9).to_vec()));
    let lock = |on| set_option(&fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, on);
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER).unwrap(), 0);
    lock(1).unwrap();
    assert_eq!(option(&fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER).unwrap(), 1);
    assert_eq!(errno(lock(0)), libc::EPERM);
    assert_eq!(errno(attach(&fd, &[ret(1)])), libc::EPERM);
    assert_eq!(errno(detach(&fd)), libc::EPERM);
}
