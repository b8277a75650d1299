//! Frames that no honest host sends.

mod floods;
mod handshakes;
mod segments;
mod storms;
mod windows;

use ioth_core::{Domain, SockAddr};
use ioth_vde::{Batch, Frame};
use proptest::prelude::*;
use smoltcp::time::Duration;

use super::lan::{ETH, Lan, WIRE, addr, mac};

/// A node with a listener and a bound datagram socket, and a connection in the making.
fn target() -> Lan {
    let mut lan = Lan::new(2, WIRE);
    for v6 in [true, false] {
        let domain = if v6 { Domain::INET6 } else { Domain::INET };
        let listener = lan.stream(1, domain);
        lan.nodes[1].bind(listener, &SockAddr::Ip(addr(1, v6, 80))).unwrap();
        lan.nodes[1].listen(listener, 5).unwrap();
        let datagrams = lan.datagrams(1, domain);
        lan.nodes[1].bind(datagrams, &SockAddr::Ip(addr(1, v6, 7))).unwrap();
        let client = lan.stream(0, domain);
        let _ = lan.nodes[0].connect(client, &SockAddr::Ip(addr(1, v6, 80)));
    }
    lan.settle();
    lan
}

fn hit(lan: &mut Lan, frame: &[u8]) {
    lan.nodes[1].handle_frame(ETH, Frame::copy_of(frame));
    lan.nodes[1].poll();
    lan.nodes[1].take_egress(ETH, &mut Batch::new());
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(payload in proptest::collection::vec(any::<u8>(), 0..200), ethertype in prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x86dd), any::<u16>()]) {
        let mut lan = target();
        let mut frame = [mac(1).0, mac(9).0].concat();
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(&payload);
        hit(&mut lan, &frame);
    }

    #[test]
    fn real_frames_with_changed_bytes_do_no_harm(seed: u64, changes in proptest::collection::vec((0usize..100, any::<u8>()), 1..6)) {
        let mut lan = target();
        let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let copies = sent.clone();
        lan.fate = Box::new(move |frame| {
            copies.borrow_mut().push(frame.to_vec());
            vec![Duration::from_micros(50)]
        });
        lan.run_until(Duration::from_millis(100), |_| false);
        let frames = sent.borrow().clone();
        let Some(frame) = frames.get(seed as usize % frames.len().max(1)) else { return Ok(()) };
        let mut frame = frame.clone();
        for (at, byte) in changes {
            let len = frame.len();
            frame[14 + at % (len - 14)] = byte;
        }
        frame[..6].copy_from_slice(&mac(1).0);
        hit(&mut lan, &frame);
        lan.run_until(Duration::from_secs(2), |_| false);
    }
}
