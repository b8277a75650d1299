//! `udp://` and `seqpacket://`.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use ioth_core::Errno;
use ioth_vde::{LinkError, open};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::plug::{Plug, frame, wait_until};

/// Two ports of a loopback address that nobody has.
fn ports(host: &str) -> [u16; 2] {
    let sockets = [(); 2].map(|()| UdpSocket::bind((host, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

#[test]
fn udp_with_upstreams() {
    for host in ["127.0.0.1", "::1"] {
        let [a, b] = ports(host);
        let ours = Plug::new(&format!("udp://{host}:{a}->{host}:{b}"));
        // The far end is not there yet: what is sent is lost, and the link stays.
        ours.send([frame(2, 1, 60, 1)]);
        let theirs = Plug::new(&format!("cmd://vde_plug 'udp://{host}:{b}->{host}:{a}'"));
        ours.exchange(&theirs, 1514);
        let again = open(&format!("udp://{a}->{host}:{b}"));
        if host == "127.0.0.1" {
            assert_eq!(again.unwrap_err().errno(), Errno::EADDRINUSE);
        }
    }
}

#[test]
fn udp_takes_what_is_a_frame() {
    let [a, b] = ports("127.0.0.1");
    let plug = Plug::new(&format!("udp://127.0.0.1:{a}->127.0.0.1:{b}/mtu=9000"));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 1, 13, 9019, 65_000, 14, 9018] {
        stranger.send_to(&vec![7; len], ("127.0.0.1", a)).unwrap();
    }
    assert_eq!(plug.seen.frames(2).iter().map(Vec::len).collect::<Vec<_>>(), [14, 9018]);
    assert_eq!(plug.link.counters().rx_bad_length, 5);
    assert_eq!(plug.link.properties().mtu, 9000);
}

#[test]
fn udp_without_a_way_counts_what_is_lost() {
    // The destination is refused by its class: there never is a way to it.
    let plug = Plug::new("udp://127.0.0.1:0->240.0.0.1:9");
    plug.send([frame(2, 1, 60, 0), frame(2, 1, 60, 1)]);
    assert_eq!(plug.link.counters().tx_unreachable, 2);
}

fn pair(kind: SockType) -> [OwnedFd; 2] {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap().into()
}

#[test]
fn a_socket_that_was_inherited() {
    for kind in [SockType::SeqPacket, SockType::Datagram] {
        let [near, far] = pair(kind);
        let number = near.into_raw_fd();
        let vnl = format!("seqpacket://{number:#x}");
        let plug = Plug::new(&vnl);
        // Big and small, and none of no bytes: that would be the end.
        plug.send([frame(2, 1, 14, 0), frame(2, 1, 1514, 1)]);
        let mut buffer = [0; 2000];
        for wanted in [frame(2, 1, 14, 0), frame(2, 1, 1514, 1)] {
            let len = recv(far.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            assert_eq!(buffer[..len], wanted);
        }
        for len in [13, 1519, 60] {
            send(far.as_raw_fd(), &frame(1, 2, 2000, 5)[..len], MsgFlags::empty()).unwrap();
        }
        assert_eq!(plug.seen.frames(1)[0].len(), 60);
        assert_eq!(plug.link.counters().rx_bad_length, 2);
        if kind == SockType::SeqPacket {
            drop(far);
            assert_eq!(plug.seen.down(), LinkError::Gone(vnl));
        } else {
            drop(plug);
            // The reactor may be about to let go of it.
            wait_until("end of the other side", || {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                send(far.as_raw_fd(), &[0; 60], flags).is_err_and(|errno| errno != Errno::EAGAIN)
            });
        }
    }
}

#[test]
fn a_peer_that_stops_reading_pushes_back() {
    let [near, far] = pair(SockType::SeqPacket);
    let plug = Plug::new(&format!("seqpacket://{}", near.into_raw_fd()));
    let mut batch = (0..5000).map(|number| ioth_vde::Frame::copy_of(&frame(2, 1, 1514, number))).collect();
    plug.link.send(&mut batch).unwrap();
    let left = batch.len();
    assert!(left > 0 && left < 5000, "{left} frames left");
    let mut buffer = [0; 2000];
    let mut next = 0;
    let reader = std::thread::spawn(move || {
        while next < 5000 {
            let len = recv(far.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            assert_eq!(buffer[..len], frame(2, 1, 1514, next));
            next += 1;
        }
    });
    plug.send(batch.drain(..).map(|frame| frame.to_vec()));
    reader.join().unwrap();
    wait_until("all sent", || plug.link.counters().tx_frames == 5000);
}

#[test]
fn only_sockets_with_messages_are_taken() {
    let [stream, _other] = pair(SockType::Stream);
    let errno = |vnl: &str| open(vnl).unwrap_err().errno();
    assert_eq!(errno(&format!("seqpacket://{}", stream.as_raw_fd())), Errno::EPROTOTYPE);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(errno(&format!("seqpacket://{}", file.as_raw_fd())), Errno::ENOTSOCK);
    assert_eq!(errno("seqpacket://1000000"), Errno::EBADF);
    for wrong in ["seqpacket://", "seqpacket://-1", "seqpacket://x", "seqpacket://99999999999"] {
        assert_eq!(errno(wrong), Errno::EINVAL, "{wrong}");
    }
    // What was refused stays where it is.
    assert!(file.metadata().is_ok());
}

#[test]
fn a_link_has_one_receiver_and_one_life() {
    let [near, far] = pair(SockType::SeqPacket);
    let plug = Plug::new(&format!("seqpacket://{}", near.into_raw_fd()));
    assert_eq!(plug.link.attach(plug.seen.clone()).unwrap_err().errno(), Errno::EISCONN);
    plug.link.detach();
    plug.link.detach();
    assert_eq!(plug.link.attach(plug.seen.clone()), Err(LinkError::Detached));
    let mut batch = [ioth_vde::Frame::copy_of(&frame(2, 1, 60, 0))].into();
    assert_eq!(plug.link.send(&mut batch), Err(LinkError::Detached));
    assert!(batch.is_empty());
    assert_eq!(plug.link.counters().tx_down, 1);
    // Nothing is told of what comes now, not even the end.
    send(far.as_raw_fd(), &frame(1, 2, 60, 0), MsgFlags::MSG_NOSIGNAL).unwrap();
    drop(far);
    assert_eq!(plug.link.counters().rx_frames, 0);
}
