//! Names and interfaces, asked for by a program whose node's name server is another program on that node.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Ptr};
use ioth::SockAddr;
use ioth::conf::Resolver;
use ioth_node_proto::{Head, HeadKind, Item, Op, Reply, Row, Wanted, wanted_names};

use crate::program::{Node, read, write};

/// How many requests about names a node has under way at most.
const MOST: usize = 256;

fn node() -> (Node, OwnedFd) {
    let mut resolver = Resolver::default();
    resolver.apply(&"dns=127.0.0.1,domain=example".parse().unwrap());
    let node = Node::start_with(resolver);
    let server = node.udp();
    node.bind(&server, 53);
    (node, server)
}

/// Takes a question, and answers it: any name is at 192.0.2.1, and any address is web.example's.
fn answer(server: &OwnedFd) -> Vec<u8> {
    let message = read(server).unwrap();
    let from = Head::parse(&message).unwrap();
    let question = Message::from_slice(&message[Head::LEN..]).unwrap();
    let mut answer = MessageBuilder::new_vec().start_answer(question, Rcode::NOERROR).unwrap();
    let asked = question.sole_question().unwrap();
    match asked.qtype() {
        Rtype::A => answer.push((asked.qname(), 1, A::from_octets(192, 0, 2, 1))).unwrap(),
        Rtype::PTR => {
            let name: Name<Vec<u8>> = "web.example".parse().unwrap();
            answer.push((asked.qname(), 1, Ptr::new(name))).unwrap();
        }
        _ => {}
    }
    let answer = answer.finish();
    write(server, &[&Head::new(HeadKind::Message, from.addr()).emit()[..], &answer].concat()).unwrap();
    answer
}

fn begin(node: &Node, op: Op, args: &[i32], payload: &[u8]) -> OwnedFd {
    let conversation = node.converse();
    node.tell(&conversation, op, 0, args, payload, None);
    conversation
}

fn lookup(node: &Node, host: &str) -> OwnedFd {
    let mut payload = [0; 256];
    let wanted = Wanted { host: Some(host.as_bytes()), service: Some(b"80") };
    let len = wanted.emit(&mut payload).unwrap();
    let args = [libc::AI_CANONNAME, libc::AF_INET, libc::SOCK_STREAM, 0];
    begin(node, Op::Lookup, &args, &payload[..len])
}

#[test]
fn every_kind_of_question() {
    let (node, server) = node();
    let asked = lookup(&node, "web");
    answer(&server);
    let (reply, row) = node.reply(&asked);
    assert_eq!(reply, Reply::default());
    let items: Vec<Item<'_>> = Row::new(&row).collect();
    let [Item::Name(name), Item::AddrInfo(info)] = items[..] else { panic!("{items:?}") };
    assert_eq!(name, b"web.example");
    assert_eq!(
        (info.family, info.kind, info.protocol),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP)
    );
    let web = SocketAddr::from(([192, 0, 2, 1], 80));
    assert_eq!(SockAddr::from_raw(info.addr), Ok(SockAddr::Ip(web)));

    let host = [Item::Name(b"web.example"), Item::Address(&[192, 0, 2, 1])];
    for (op, payload) in [(Op::HostByName, &b"web.example"[..]), (Op::HostByAddr, &[192, 0, 2, 1])] {
        let asked = begin(&node, op, &[libc::AF_INET], payload);
        answer(&server);
        let (reply, row) = node.reply(&asked);
        assert_eq!(reply, Reply::default());
        assert_eq!(Row::new(&row).collect::<Vec<_>>(), host);
    }

    let both = wanted_names::HOST | wanted_names::SERVICE;
    let flags = libc::NI_NOFQDN | libc::NI_NUMERICSERV;
    let asked = begin(&node, Op::NameInfo, &[flags, both], &SockAddr::from(web).to_raw());
    answer(&server);
    let (reply, row) = node.reply(&asked);
    assert_eq!(reply, Reply::default());
    assert_eq!(Row::new(&row).collect::<Vec<_>>(), [Item::Name(b"web"), Item::Service(b"80")]);

    for (name, search) in [(&b"web.example"[..], 0), (b"web", 1)] {
        let asked = begin(&node, Op::Resolve, &[1, 1, search], name);
        let answered = answer(&server);
        let reply = Reply { result: answered.len() as i32, ..Reply::default() };
        assert_eq!(node.reply(&asked), (reply, answered));
    }
    let asked = begin(&node, Op::Resolve, &[1, 16, 0], b"web.example");
    let answered = answer(&server);
    // h_errno's NO_DATA
    let reply = Reply { result: answered.len() as i32, args: [4, 0], ..Reply::default() };
    assert_eq!(node.reply(&asked), (reply, answered));

    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x07example\x00\x00\x01\x00\x01";
    let asked = begin(&node, Op::Exchange, &[], question);
    let answered = answer(&server);
    let reply = Reply { result: answered.len() as i32, ..Reply::default() };
    assert_eq!(node.reply(&asked), (reply, answered));
    drop(server);
    node.end();
}

#[test]
fn what_is_no_question() {
    let (node, server) = node();
    let ask = |op, args: &[i32], payload: &[u8]| node.reply(&begin(&node, op, args, payload)).0;
    assert_eq!(ask(Op::Lookup, &[-1, 0, 0, 0], b"\x01localhost\0\0").result, libc::EAI_BADFLAGS);
    assert_eq!(ask(Op::Lookup, &[0; 4], b"\0\0").result, libc::EAI_NONAME);
    let malformed = Reply { result: libc::EAI_SYSTEM, args: [libc::EPROTO, 0], ..Reply::default() };
    assert_eq!(ask(Op::Lookup, &[0; 4], b"\x01localhost"), malformed);
    assert_eq!(ask(Op::Lookup, &[0; 4], b"\x01\xff\0\0").result, libc::EAI_NONAME);
    let unknown = Reply { result: -1, args: [libc::EAFNOSUPPORT, 0], ..Reply::default() };
    assert_eq!(ask(Op::HostByName, &[libc::AF_UNIX], b"web"), unknown);
    assert_eq!(ask(Op::HostByAddr, &[libc::AF_INET], b"web").args, [libc::EINVAL, 0]);
    assert_eq!(ask(Op::NameInfo, &[0, 1], &[]).result, libc::EAI_FAMILY);
    assert_eq!(ask(Op::Resolve, &[1, 65536, 0], b"web").args, [3, 0]);
    assert_eq!(ask(Op::Exchange, &[], b"short").result, -libc::EINVAL);
    assert_eq!(ask(Op::Interfaces, &[-1], &[]).result, -libc::EINVAL);
    drop(server);
    node.end();
}

#[test]
fn interfaces_are_listed() {
    let (node, server) = node();
    let (reply, row) = node.reply(&begin(&node, Op::Interfaces, &[0], &[]));
    let entries: Vec<_> = Row::new(&row).collect();
    assert_eq!(reply.args[0] as usize, entries.len());
    let ip = |item: &Item<'_>| match item {
        Item::Interface(entry) if entry.name == b"lo" => SockAddr::from_raw(entry.addr).ok()?.as_ip(),
        _ => None,
    };
    let ips: Vec<IpAddr> = entries.iter().filter_map(ip).map(|addr| addr.ip()).collect();
    assert!(ips.contains(&[127, 0, 0, 1].into()), "{ips:?}");
    drop(server);
    node.end();
}

#[test]
fn too_many_questions_are_turned_away_and_deserted_ones_forgotten() {
    const TRY_AGAIN: i32 = 2;
    let (node, server) = node();
    let asked: Vec<OwnedFd> = (0..MOST).map(|_| lookup(&node, "web.example.")).collect();
    assert_eq!(node.reply(&lookup(&node, "web.example.")).0.result, libc::EAI_AGAIN);
    let simple = || node.reply(&begin(&node, Op::HostByName, &[libc::AF_INET], b"localhost")).0.result;
    assert_eq!(simple(), TRY_AGAIN);
    // Whoever goes makes room.
    drop(asked);
    let deadline = Instant::now() + Duration::from_secs(20);
    while simple() == TRY_AGAIN {
        assert!(Instant::now() < deadline, "the deserted ones are not forgotten");
    }
    assert_eq!(simple(), 0);
    drop(server);
    node.end();
}
