//! The client against stacks that answer wrongly, or more than they were asked. What right
//! answers look like is for the kernel to say: `tests/netlink_kernel.rs`.

#[macro_use]
#[path = "../../tests/support/refusing.rs"]
mod refusing;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLM_F_MULTIPART};
use proptest::prelude::*;

use super::*;
use crate::{Domain, MsgFlags, RecvMsg, SendMsg, SockAddr, Socket, SocketType};

/// Answers a request with datagrams and the ports that they come from.
type Answer = dyn Fn(&[u8]) -> Vec<(u32, Vec<u8>)> + Send + Sync;

const PORT: u32 = 77;

struct Fake {
    answer: Arc<Answer>,
    queue: Mutex<VecDeque<(u32, Vec<u8>)>>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

fn fake(answer: impl Fn(&[u8]) -> Vec<(u32, Vec<u8>)> + Send + Sync + 'static) -> Route {
    Route::new(&Fake { answer: Arc::new(answer), queue: Mutex::default() }).unwrap()
}

impl Stack for Fake {
    fn backend(&self) -> &str {
        "fake"
    }
    fn socket(&self, _: Domain, _: SocketType, _: i32) -> crate::Result<Arc<dyn Socket>> {
        Ok(Arc::new(Fake { answer: self.answer.clone(), queue: Mutex::default() }))
    }
    fn delete(&self) -> crate::Result<()> {
        Ok(())
    }
}

impl Socket for Fake {
    fn bind(&self, _: &SockAddr) -> crate::Result<()> {
        Ok(())
    }
    fn local_addr(&self) -> crate::Result<SockAddr> {
        Ok(SockAddr::Netlink { port: PORT, groups: 0 })
    }
    fn send(&self, message: &SendMsg<'_>, _: MsgFlags) -> crate::Result<usize> {
        self.queue.lock().extend((self.answer)(&message.data[0]));
        Ok(message.len())
    }
    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> crate::Result<usize> {
        let mut queue = self.queue.lock();
        let (port, bytes) = queue.front().ok_or(Errno::EAGAIN)?;
        let len = bytes.len().min(message.capacity());
        message.data[0][..len].copy_from_slice(&bytes[..len]);
        message.addr = Some(SockAddr::Netlink { port: *port, groups: 0 });
        let len = if flags.contains(MsgFlags::TRUNC) { bytes.len() } else { len };
        if !flags.contains(MsgFlags::PEEK) {
            queue.pop_front();
        }
        Ok(len)
    }
    fn set_option(&self, _: i32, _: i32, _: &[u8]) -> crate::Result<()> {
        Err(Errno::ENOPROTOOPT)
    }
    fn release_fd(&self) -> crate::Result<OwnedFd> {
        Err(Errno::EMFILE)
    }
    refusing!(crate);
}

/// The sequence number of a request.
fn sequence(request: &[u8]) -> u32 {
    u32::from_ne_bytes(request[8..12].try_into().unwrap())
}

fn message(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(port.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const ERROR: u16 = 2;
const DONE: u16 = 3;

fn error(request: &[u8], code: i32) -> Vec<u8> {
    message(ERROR, NLM_F_CAPPED, sequence(request), PORT, &[&code.to_ne_bytes(), &request[..16]].concat())
}

/// The payload of an RTM_NEWLINK.
fn link(index: u32, name: &str) -> Vec<u8> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut bytes = vec![0; netlink_packet_core::Emitable::buffer_len(&message)];
    netlink_packet_core::Emitable::emit(&message, &mut bytes);
    bytes
}

#[test]
fn answers_to_others_are_skipped() {
    let route = fake(|request| {
        let seq = sequence(request);
        let wanted = message(libc::RTM_NEWLINK, 0, seq, PORT, &link(5, "vde5"));
        vec![
            (0, message(ERROR, 0, seq.wrapping_sub(1), PORT, &(-1i32).to_ne_bytes())),
            (0, message(ERROR, 0, seq, PORT + 1, &(-1i32).to_ne_bytes())),
            // from another process
            (4711, message(ERROR, 0, seq, PORT, &(-1i32).to_ne_bytes())),
            // a no-op, then the answer, in one datagram
            (0, [message(1, 0, seq, PORT, &[]), wanted].concat()),
        ]
    });
    assert_eq!(route.link_index("vde5"), Ok(5));
}

#[test]
fn an_endless_stream_of_others_ends() {
    let route = fake(|request| vec![(0, message(ERROR, 0, sequence(request) ^ 1, PORT, &[0; 4])); 5000]);
    assert!(matches!(route.set_link_up(1, true), Err(Error::Malformed(_))));
}

#[test]
fn a_silent_stack_times_out() {
    assert_eq!(fake(|_| vec![]).links(), Err(Error::Os(Errno::ETIMEDOUT)));
}

#[test]
fn refusals() {
    let route = fake(|request| vec![(0, error(request, -libc::EPERM))]);
    assert_eq!(route.links().unwrap_err().errno(), Errno::EPERM);
    assert_eq!(route.link_index("lo").unwrap_err().errno(), Errno::EPERM);
    assert_eq!(route.set_link_up(1, true).unwrap_err().to_string(), "netlink: Operation not permitted");

    let absurd = fake(|request| vec![(0, error(request, i32::MIN))]);
    assert_eq!(absurd.set_link_up(1, true).unwrap_err().errno(), Errno::UnknownErrno);
    let acknowledged = fake(|request| vec![(0, error(request, 0))]);
    assert_eq!(acknowledged.set_link_up(1, true), Ok(()));
    assert!(matches!(acknowledged.link_index("lo"), Err(Error::Malformed(_))));
}

#[test]
fn words_of_an_extended_acknowledgement() {
    for capped in [NLM_F_CAPPED, 0] {
        let route = fake(move |request| {
            let echoed = if capped == 0 { request } else { &request[..16] };
            let text = b"\x0d\0\x01\0go\x1bhome\0\0\0\0";
            let payload = [&(-libc::EBUSY).to_ne_bytes(), echoed, text].concat();
            vec![(0, message(ERROR, NLM_F_ACK_TLVS | capped, sequence(request), PORT, &payload))]
        });
        let refused = Error::Refused { errno: Errno::EBUSY, message: "gohome".to_owned() };
        assert_eq!(route.set_link_up(1, true), Err(refused.clone()));
        assert_eq!(refused.to_string(), "netlink: Device or resource busy: gohome");
    }
}

#[test]
fn dumps() {
    let tries = Mutex::new(0);
    let route = fake(move |request| {
        let seq = sequence(request);
        let part = |flags, index, name| {
            message(libc::RTM_NEWLINK, NLM_F_MULTIPART | flags, seq, PORT, &link(index, name))
        };
        *tries.lock() += 1;
        // The table changes under the first dump.
        let changed = if *tries.lock() == 1 { NLM_F_DUMP_INTR } else { 0 };
        vec![
            (0, [part(0, 1, "lo"), part(changed, 2, "vde0")].concat()),
            // without index, without name: left out
            (0, [part(0, 0, "x"), part(0, 9, "")].concat()),
            (0, part(0, 3, "vde1")),
            (0, message(DONE, NLM_F_MULTIPART, seq, PORT, &[0; 4])),
        ]
    });
    let names: Vec<String> = route.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "vde0", "vde1"]);

    let failing = fake(|request| {
        vec![(0, message(DONE, NLM_F_MULTIPART, sequence(request), PORT, &(-libc::ENOMEM).to_ne_bytes()))]
    });
    assert_eq!(failing.routes().unwrap_err().errno(), Errno::ENOMEM);
}

#[test]
fn a_datagram_longer_than_the_buffer() {
    let route = fake(|request| {
        let seq = sequence(request);
        let part = message(libc::RTM_NEWLINK, NLM_F_MULTIPART, seq, PORT, &link(1, "lo"));
        vec![(0, part.repeat(5000)), (0, message(DONE, NLM_F_MULTIPART, seq, PORT, &[]))]
    });
    assert_eq!(route.links().unwrap().len(), 5000);
}

#[test]
fn lengths_that_lie() {
    for len in [0u32, 15, 21, u32::MAX] {
        let route = fake(move |request| {
            let mut bytes = error(request, 0);
            bytes.truncate(20);
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            vec![(0, bytes)]
        });
        assert!(matches!(route.set_link_up(1, true), Err(Error::Malformed(_))), "{len}");
    }
}

#[test]
fn several_next_hops() {
    let hop = |index: u32, gateway: [u8; 4]| {
        [&[16u8, 0, 0, 0][..], &index.to_ne_bytes(), &[8, 0, libc::RTA_GATEWAY as u8, 0], &gateway].concat()
    };
    let hops = [hop(3, [10, 0, 0, 1]), hop(4, [10, 0, 1, 1])].concat();
    let header = [libc::AF_INET as u8, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let payload = [&header[..], &[36, 0, libc::RTA_MULTIPATH as u8, 0], &hops].concat();
    let routes = RouteEntry::parse(&payload).unwrap();
    let shown: Vec<_> =
        routes.iter().map(|route| (route.index, route.gateway.unwrap().to_string())).collect();
    assert_eq!(shown, [(3, "10.0.0.1".to_owned()), (4, "10.0.1.1".to_owned())]);
    assert!(routes[0].default_route());
}

/// Every question, whatever the answers say.
fn ask_everything(route: &Route) {
    let _ = route.links();
    let _ = route.interface_addresses();
    let _ = route.addresses();
    let _ = route.routes();
    let _ = route.link_index("lo");
    let _ = route.link_addr(1);
    let _ = route.set_link_mtu(1, 1500);
    let _ = route.del_route(None, Some([10, 0, 0, 1].into()), 1);
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        ask_everything(&fake(move |_| vec![(0, bytes.clone())]));
    }

    /// Replies with a right header, so that the bytes reach the parsers behind it.
    #[test]
    fn any_payload(kind in 0u16..40, flags: u16, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        ask_everything(&fake(move |request| {
            vec![(0, message(kind, flags, sequence(request), PORT, &payload))]
        }));
    }

    /// Attributes of right kinds with wrong contents.
    #[test]
    fn any_attribute(
        header in proptest::collection::vec(any::<u8>(), 16),
        family in prop_oneof![Just(2u8), Just(10)],
        attributes in proptest::collection::vec((0u16..30, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(&value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        for len in [8, 12, 16] {
            let mut payload = header[..len].to_vec();
            payload[0] = family;
            payload.extend(&body);
            let _ = Link::parse(&payload);
            let _ = Address::parse(&payload);
            let _ = RouteEntry::parse(&payload);
        }
    }
}
