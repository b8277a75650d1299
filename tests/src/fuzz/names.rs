//! Names: what servers answer, what files say, what programs ask for.

use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use ioth::Stack;
use ioth::conf::Resolver;
use ioth_node::names::dns::message::{self, Verdict};
use ioth_node::names::hosts::{Family, Hosts};
use ioth_node::names::services::Services;
use ioth_node::names::{Files, Names, Query};

use super::Input;

/// A server's answer to one of three questions. It gives no more than it has room for.
pub fn dns(data: &[u8]) {
    let mut input = Input(data);
    let question = QUESTIONS[usize::from(input.byte()) % QUESTIONS.len()];
    let answer = input.0;
    if message::judge(question, answer) == Verdict::Answer {
        assert!(answer.len() >= 12 && answer[..2] == question[..2], "not an answer to the question");
    }
    for host in [message::addresses(answer), message::pointers(answer)].into_iter().flatten() {
        assert!(host.addresses.len() + host.aliases.len() <= answer.len());
        // Text of a server's goes to programs that may show it to terminals and shells.
        let plain =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        assert!(plain(&host.name), "{:?}", host.name);
    }
    let _ = message::check(answer);
    let _ = message::Query::from_message(answer);
}

/// A hosts file, a services file and a question of getaddrinfo(3), one after the other with a NUL between.
pub fn names(data: &[u8]) {
    let mut input = Input(data);
    let (flags, family) = (input.u16(), input.byte());
    let (kind, protocol) = (input.byte(), input.byte());
    let mut texts = input.0.splitn(4, |&byte| byte == 0);
    let hosts = Hosts::parse(texts.next().unwrap_or_default());
    let services = Services::parse(texts.next().unwrap_or_default());
    let host = texts.next().and_then(|text| std::str::from_utf8(text).ok());
    let service = texts.next().and_then(|text| std::str::from_utf8(text).ok());
    for family in [Family::Any, Family::V4, Family::V6] {
        if let Some(found) = host.and_then(|host| hosts.by_name(host, family)) {
            assert!(!found.addresses.is_empty() && !found.name.is_empty());
            assert!(
                found
                    .addresses
                    .iter()
                    .all(|&ip| family == Family::Any || ip.is_ipv4() == (family == Family::V4))
            );
        }
    }
    if let Some(port) = service.and_then(|service| services.port(service, "tcp")) {
        assert!(services.name(port, "tcp").is_some());
    }
    let query = Query {
        host,
        service,
        flags: flags.into(),
        family: family.into(),
        kind: kind.into(),
        protocol: protocol.into(),
    };
    // Without servers nothing is waited for.
    let names = node_without_servers();
    let answer = pin!(names.addresses(query)).poll(&mut Context::from_waker(Waker::noop()));
    match answer {
        Poll::Ready(Ok(answer)) => assert!(!answer.found.is_empty()),
        Poll::Ready(Err(error)) => assert!(error.code() < 0 && !error.to_string().is_empty()),
        Poll::Pending => panic!("waits for {query:?}"),
    }
}

fn node_without_servers() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        let stack = Stack::newstack("smoltcp", None).expect("a node with loopback only needs nothing");
        let nothing = Files { hosts: "/dev/null".into(), services: "/dev/null".into() };
        Names::new(stack, &Resolver::default(), &nothing)
    })
}

/// Whole questions: `a.example` of types A and AAAA, and `1.2.0.192.in-addr.arpa` of type PTR.
const QUESTIONS: [&[u8]; 3] = [
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x1c\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x011\x012\x010\x03192\x07in-addr\x04arpa\x00\x00\x0c\x00\x01",
];
