//! The client against a server of ours on a neighbour node, which says what each test wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, ToName};
use domain::rdata::{A, Aaaa, Cname, Ptr};
use ioth::Stack;
use ioth::net::{TcpListener, TcpStream, UdpSocket};
use proptest::prelude::*;

use super::message::{Failure, Query, Verdict, judge};
use super::*;
use crate::task::Task;
use crate::task::tests::block_on;

const NODE: &str = "10.0.0.1/24";
const SERVER: &str = "10.0.0.53/24";
/// How long is waited for those that do not answer.
const SHORT: Duration = Duration::from_millis(600);
const OTHER: &str = "10.0.0.54/24";

/// Two neighbours and the client of the first, whose servers are the second's addresses.
struct Lan {
    node: Stack,
    server: Stack,
    client: Client,
}

fn lan() -> Lan {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let vnl = format!("switch://ioth-dns-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let stack = |words: &str| Stack::new(&format!("stack=smoltcp,vnl={vnl},{words}")).unwrap();
    let node = stack(&format!("ip={NODE}"));
    let server = stack(&format!("ip={SERVER},ip={OTHER}"));
    let client = client(&node, "dns=10.0.0.53,dns=10.0.0.54,domain=a.org,domain=b.org");
    Lan { node, server, client }
}

fn client(node: &Stack, words: &str) -> Client {
    let mut resolver = Resolver::default();
    resolver.apply(&words.parse().unwrap());
    Client::new(node.clone(), &resolver)
}

/// What the server does about a question, in order.
enum Act {
    Say(Vec<u8>),
    /// From another address of it.
    SayFromElsewhere(Vec<u8>),
}

/// A server on UDP whose `answer` is called with each question; what was asked is told in the end.
struct Server {
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Lan {
    fn serve(&self, ip: &str, answer: impl Fn(&Message<[u8]>, usize) -> Vec<Act> + Send + 'static) -> Server {
        let ip: IpAddr = ip.split_once('/').map_or(ip, |(ip, _)| ip).parse().unwrap();
        let socket = UdpSocket::bind_on(&self.server, (ip, 53)).unwrap();
        let elsewhere = UdpSocket::bind_on(&self.server, (Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let asked: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let log = asked.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 65535];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let question = Message::from_slice(&buffer[..len]).unwrap();
                let count = {
                    let mut log = log.lock().unwrap();
                    log.push(question.as_slice().to_vec());
                    log.len()
                };
                for act in answer(question, count) {
                    match act {
                        Act::Say(message) => socket.send_to(&message, from).unwrap(),
                        Act::SayFromElsewhere(message) => elsewhere.send_to(&message, from).unwrap(),
                    };
                }
            }
        });
        Server { asked }
    }

    fn by_name(&self, name: &str, family: Family) -> Result<Host, Failure> {
        block_on(self.client.by_name(name, family))
    }
}

impl Server {
    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn names(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let name = |message: &Vec<u8>| {
            let question = Message::from_slice(message).unwrap().sole_question().unwrap();
            question.into_qname().to_name::<Vec<u8>>().to_string()
        };
        asked.iter().map(name).collect()
    }
}

/// A record of an answer: owner, type and data, as in a zone's file.
fn records(question: &Message<[u8]>, rcode: Rcode, lines: &[&str]) -> Vec<u8> {
    let mut answer = MessageBuilder::new_vec().start_answer(question, rcode).unwrap();
    let name = |text: &str| Name::<Vec<u8>>::from_chars(text.chars()).unwrap();
    for line in lines {
        let [owner, kind, data] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let owner = name(owner);
        match kind {
            "A" => answer.push((owner, 60, A::new(data.parse().unwrap()))).unwrap(),
            "AAAA" => answer.push((owner, 60, Aaaa::new(data.parse().unwrap()))).unwrap(),
            "CNAME" => answer.push((owner, 60, Cname::new(name(data)))).unwrap(),
            "PTR" => answer.push((owner, 60, Ptr::new(name(data)))).unwrap(),
            _ => panic!("{line}"),
        }
    }
    answer.finish()
}

/// An answer with the lines of the type that was asked for and all aliases.
fn zone(question: &Message<[u8]>, lines: &[&str]) -> Vec<u8> {
    let kind = question.qtype().unwrap().to_string();
    let fitting: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.contains(&format!(" {kind} ")) || line.contains(" CNAME "))
        .collect();
    records(question, Rcode::NOERROR, &fitting)
}

fn addresses(host: &Host) -> Vec<String> {
    host.addresses.iter().map(IpAddr::to_string).collect()
}

#[test]
fn both_families_are_asked_for_and_aliases_followed() {
    let lan = lan();
    let server = lan.serve(SERVER, |question, _| {
        vec![Act::Say(zone(
            question,
            &[
                "web.example CNAME real.example",
                "real.example CNAME last.example",
                "last.example A 192.0.2.1",
                "last.example A 192.0.2.2",
                "last.example AAAA 2001:db8::1",
                "other.example A 192.0.2.3",
            ],
        ))]
    });
    let host = lan.by_name("Web.example", Family::Any).unwrap();
    assert_eq!(host.name, "last.example");
    assert_eq!(host.aliases, ["Web.example", "real.example"]);
    assert_eq!(addresses(&host), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(addresses(&lan.by_name("web.example", Family::V4).unwrap()), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(addresses(&lan.by_name("web.example", Family::V6).unwrap()), ["2001:db8::1"]);
    assert_eq!(server.count(), 4);
    let ids: Vec<u16> = server
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|message| Message::from_slice(message).unwrap().header().id())
        .collect();
    assert!(ids.windows(2).any(|pair| pair[0] != pair[1]), "{ids:?}");
}

#[test]
fn the_search_list_is_tried() {
    let lan = lan();
    let server = lan.serve(SERVER, |question, _| {
        let found = zone(question, &["www.b.org A 192.0.2.1"]);
        let name = question.first_question().unwrap().into_qname().to_name::<Vec<u8>>().to_string();
        vec![Act::Say(if name == "www.b.org" { found } else { records(question, Rcode::NXDOMAIN, &[]) })]
    });
    let host = lan.by_name("www", Family::V4).unwrap();
    assert_eq!((host.name.as_str(), addresses(&host)), ("www.b.org", vec!["192.0.2.1".to_owned()]));
    assert_eq!(lan.by_name("nobody", Family::V4), Err(Failure::NotFound));
    assert_eq!(lan.by_name("www.b.org", Family::V6), Err(Failure::NoData));
    assert_eq!(
        server.names(),
        [
            "www.a.org",
            "www.b.org",
            "nobody.a.org",
            "nobody.b.org",
            "nobody",
            "www.b.org",
            "www.b.org.a.org",
            "www.b.org.b.org"
        ]
    );
}

#[test]
fn only_the_answer_is_taken() {
    let lan = lan();
    let _server = lan.serve(SERVER, |question, _| {
        let right = zone(question, &["a.example A 192.0.2.1"]);
        let wrong = zone(question, &["a.example A 192.0.2.66"]);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = wrong.clone();
            change(&mut message);
            Act::Say(message)
        };
        vec![
            Act::SayFromElsewhere(wrong.clone()),
            changed(&|message| message[0] ^= 1),
            changed(&|message| message[2] &= 0x7f),
            changed(&|message| message[2] |= 0x10),
            changed(&|message| message[13] = b'b'),
            changed(&|message| message[5] = 0),
            changed(&|message| message.truncate(11)),
            Act::Say(Vec::new()),
            Act::Say(question.as_slice().to_vec()),
            Act::Say(right),
        ]
    });
    assert_eq!(addresses(&lan.by_name("a.example.", Family::V4).unwrap()), ["192.0.2.1"]);
}

#[test]
fn a_server_that_guesses_is_given_up() {
    let lan = lan();
    let guesser = lan.serve(SERVER, |question, _| {
        let mut message = zone(question, &["a.example A 192.0.2.66"]);
        message[0] ^= 1;
        (0..64).map(|_| Act::Say(message.clone())).collect()
    });
    let honest = lan.serve(OTHER, |question, _| vec![Act::Say(zone(question, &["a.example A 192.0.2.1"]))]);
    assert_eq!(addresses(&lan.by_name("a.example.", Family::V4).unwrap()), ["192.0.2.1"]);
    assert_eq!((guesser.count(), honest.count()), (1, 1));
}

#[test]
fn another_server_is_asked() {
    let lan = lan();
    // Nobody is at the first one.
    let second = lan.serve(OTHER, |question, _| vec![Act::Say(zone(question, &["a.example A 192.0.2.1"]))]);
    assert_eq!(addresses(&lan.by_name("a.example.", Family::V4).unwrap()), ["192.0.2.1"]);
    let rcodes = [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP];
    let first = lan.serve(SERVER, move |question, count| {
        vec![Act::Say(records(question, rcodes[(count - 1) % 3], &[]))]
    });
    for _ in rcodes {
        assert_eq!(addresses(&lan.by_name("a.example.", Family::V4).unwrap()), ["192.0.2.1"]);
    }
    assert_eq!((first.count(), second.count()), (3, 4));
}

#[test]
fn silence_and_refusal_of_all_servers_are_told_apart() {
    let mut lan = lan();
    lan.client.servers.patience = SHORT;
    let refused = Err(Failure::Unreachable(Errno::ECONNREFUSED));
    assert_eq!(lan.by_name("a.example", Family::Any), refused);
    assert_eq!(block_on(client(&lan.node, "").by_name("a.example", Family::Any)), refused, "no server");
    let silent = lan.serve(SERVER, |_, _| Vec::new());
    let _silent = lan.serve(OTHER, |_, _| Vec::new());
    assert_eq!(lan.by_name("a", Family::V4), Err(Failure::Unreachable(Errno::ETIMEDOUT)));
    assert_eq!(silent.names(), ["a.a.org"; 2], "asked twice, and for no other name");
}

#[test]
fn a_late_server_is_asked_again() {
    let mut lan = lan();
    lan.client.servers.patience = SHORT;
    let server = lan.serve(SERVER, |question, count| match count {
        1 => Vec::new(),
        _ => vec![Act::Say(zone(question, &["a.example A 192.0.2.1"]))],
    });
    assert_eq!(addresses(&lan.by_name("a.example.", Family::V4).unwrap()), ["192.0.2.1"]);
    assert_eq!(server.count(), 2);
}

#[test]
fn servers_without_edns() {
    let lan = lan();
    let server = lan.serve(SERVER, |question, _| match question.opt().is_some() {
        // Without the question, as some do.
        true => {
            let mut answer = question.as_slice()[..12].to_vec();
            answer[2] |= 0x80;
            answer[3] |= 1;
            answer[4..].fill(0);
            vec![Act::Say(answer)]
        }
        false => vec![Act::Say(zone(question, &["a.example A 192.0.2.1"]))],
    });
    assert_eq!(addresses(&lan.by_name("a.example.", Family::V4).unwrap()), ["192.0.2.1"]);
    assert_eq!(server.count(), 2);
    let payload =
        |message: &[u8]| Message::from_slice(message).unwrap().opt().map(|opt| opt.udp_payload_size());
    let asked = server.asked.lock().unwrap();
    assert_eq!([payload(&asked[0]), payload(&asked[1])], [Some(1232), None]);
}

#[test]
fn long_answers_come_over_tcp() {
    let lan = lan();
    let lines: Vec<String> = (0..300).map(|n| format!("a.example A 192.0.{}.{}", n / 100, n % 100)).collect();
    let answer =
        move |question: &Message<[u8]>| zone(question, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let _server = lan.serve(SERVER, |question, _| {
        let mut message = zone(question, &["a.example A 192.0.2.66"]);
        message[2] |= 2;
        vec![Act::Say(message)]
    });
    let listener = TcpListener::bind_on(&lan.server, "10.0.0.53:53").unwrap();
    let (told, asked) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let question = read_message(&stream);
            let answer = answer(Message::from_slice(&question).unwrap());
            told.send(question).unwrap();
            // In pieces: a stream has no messages.
            let bytes = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
            for piece in bytes.chunks(700) {
                std::io::Write::write_all(&mut &stream, piece).unwrap();
            }
        }
    });
    let host = lan.by_name("a.example.", Family::V4).unwrap();
    assert_eq!(host.addresses.len(), 300);
    assert_eq!(host.addresses[299], IpAddr::from([192, 0, 2, 99]));
    assert!(asked.recv().is_ok());
    // A question that is too long for a datagram goes there at once.
    let mut query = Query::new(7, &reverse([10, 0, 0, 1].into()).unwrap(), Class::IN, Rtype::PTR).message;
    query.resize(600, 0);
    assert!(block_on(lan.client.exchange(&query)).is_ok());
    assert_eq!(asked.recv(), Ok(query));
}

fn read_message(mut stream: &TcpStream) -> Vec<u8> {
    use std::io::Read;
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

#[test]
fn names_of_addresses() {
    let lan = lan();
    let server = lan.serve(SERVER, |question, _| {
        vec![Act::Say(records(
            question,
            Rcode::NOERROR,
            &[
                "1.2.0.192.in-addr.arpa CNAME 1.0.2.0.192.in-addr.arpa",
                "1.0.2.0.192.in-addr.arpa PTR bad\\032name.example",
                "1.0.2.0.192.in-addr.arpa PTR web.example",
                "1.0.2.0.192.in-addr.arpa PTR www.example",
            ],
        ))]
    });
    let ip = IpAddr::from([192, 0, 2, 1]);
    let host = block_on(lan.client.by_address(ip)).unwrap();
    let expected =
        Host { name: "web.example".into(), aliases: vec!["www.example".into()], addresses: vec![ip] };
    assert_eq!(host, expected);
    assert_eq!(block_on(lan.client.by_address("2001:db8::1:ab".parse().unwrap())), Err(Failure::NoData));
    assert_eq!(server.names()[1], "b.a.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

#[test]
fn messages_are_handed_on() {
    let lan = lan();
    let server = lan.serve(SERVER, |question, _| {
        let mut message = match question.qtype() {
            Some(Rtype::A) => zone(question, &["_x.a.org A 192.0.2.1"]),
            _ => records(question, Rcode::NXDOMAIN, &[]),
        };
        message[3] |= 0x20;
        vec![Act::Say(message)]
    });
    let resolve = |name, rtype: Rtype, search| block_on(lan.client.resolve(name, 1, rtype.to_int(), search));
    let found = resolve("_x", Rtype::A, true).unwrap();
    let message = Message::from_slice(&found).unwrap();
    assert_eq!(message.header_counts().ancount(), 1);
    assert!(!message.header().ad(), "nobody is trusted");
    assert!(resolve("a.b", Rtype::A, false).is_ok());
    let (failure, answer) = resolve("a.b.", Rtype::MX, false).unwrap_err();
    assert_eq!((failure, answer[3] & 15), (Failure::NotFound, 3));
    assert_eq!(resolve("a..b", Rtype::MX, false), Err((Failure::NoRecovery, Vec::new())));
    assert_eq!(server.names(), ["_x.a.org", "a.b", "a.b"]);

    let query = Query::new(4711, &reverse([10, 0, 0, 1].into()).unwrap(), Class::IN, Rtype::PTR).message;
    let answer = block_on(lan.client.exchange(&query)).unwrap();
    assert_eq!(judge(&query, &answer), Verdict::Answer);
    assert_eq!(server.asked.lock().unwrap()[3], query);
    assert_eq!(block_on(lan.client.exchange(&query[..11])), Err(Errno::EINVAL));
    assert_eq!(block_on(lan.client.exchange(&[0; 65536])), Err(Errno::EINVAL));
}

#[test]
fn a_lookup_that_nobody_waits_for_leaves_nothing() {
    let lan = lan();
    let (told, asked) = mpsc::channel();
    let _server = lan.serve(SERVER, move |_, _| {
        told.send(()).unwrap();
        Vec::new()
    });
    let client = client(&lan.node, "dns=10.0.0.53");
    let task = Task::new(async move {
        let _ = client.by_name("a.example.", Family::Any).await;
        unreachable!("nobody answers, and nobody waits for the end");
    });
    assert!(!task.start());
    asked.recv().unwrap();
    drop(task);
    assert_eq!(lan.node.delete().map_err(|error| error.errno()), Ok(()), "no socket is left open");
}

#[test]
fn an_ipv6_server() {
    let lan = lan();
    for (stack, addr) in [(&lan.node, "fd00::1/64"), (&lan.server, "fd00::53/64")] {
        let index = stack.if_nametoindex("vde0").unwrap();
        stack.ipaddr_add(addr.parse().unwrap(), index).unwrap();
    }
    // Duplicate address detection takes its time.
    let server = "[fd00::53]:53".parse::<SocketAddr>().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_usable = || {
        let socket = UdpSocket::bind_on(&lan.node, "[fd00::1]:0")?;
        socket.connect(server)?;
        UdpSocket::bind_on(&lan.server, server).map(drop)
    };
    while is_usable().is_err() {
        assert!(Instant::now() < deadline, "no address");
        thread::sleep(Duration::from_millis(2));
    }
    let _server =
        lan.serve("fd00::53", |question, _| vec![Act::Say(zone(question, &["a.example A 192.0.2.1"]))]);
    let client = client(&lan.node, "dns=fd00::53");
    assert_eq!(addresses(&block_on(client.by_name("a.example.", Family::V4)).unwrap()), ["192.0.2.1"]);
}

fn question(rtype: Rtype) -> Vec<u8> {
    Query::new(1, &Name::from_chars("a.example".chars()).unwrap(), Class::IN, rtype).message
}

#[test]
fn chains_that_go_round_or_too_far_end() {
    let query = question(Rtype::A);
    let query = Message::from_slice(&query).unwrap();
    let round =
        zone(query, &["a.example CNAME b.example", "b.example CNAME a.example", "a.example A 192.0.2.1"]);
    assert_eq!(message::addresses(&round), Err(Failure::NoRecovery));
    let mut lines = vec!["a.example CNAME n1.example".to_owned()];
    lines.extend((1..20).map(|n| format!("n{n}.example CNAME n{}.example", n + 1)));
    let long = zone(query, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(message::addresses(&long), Err(Failure::NoRecovery));
    let odd = zone(query, &["a.example CNAME a\\032b.example", "a\\032b.example A 192.0.2.1"]);
    assert_eq!(message::addresses(&odd), Err(Failure::NoRecovery));
    let root = Query::new(1, &Name::root_vec(), Class::IN, Rtype::A).message;
    let root = zone(Message::from_slice(&root).unwrap(), &[". A 192.0.2.1"]);
    assert_eq!(message::addresses(&root).map(|host| host.name), Ok(".".to_owned()));
    let stranger = zone(query, &["b.example A 192.0.2.1"]);
    assert_eq!(message::addresses(&stranger), Err(Failure::NoData));
}

proptest! {
    /// Bytes of anybody's are judged and read without a panic, and give no more than they have room for.
    #[test]
    fn whatever_comes_is_read(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        for rtype in [Rtype::A, Rtype::AAAA, Rtype::PTR] {
            let query = question(rtype);
            let asked = Message::from_slice(&query).unwrap();
            let mut near = zone(asked, &[
                "a.example CNAME b.example", "b.example A 192.0.2.1", "b.example AAAA ::1", "b.example PTR c.example",
            ]);
            for (place, byte) in &places {
                let at = place.index(near.len());
                near[at] = *byte;
            }
            for bytes in [&bytes, &near] {
                judge(&query, bytes);
                for host in [message::addresses(bytes), message::pointers(bytes)].into_iter().flatten() {
                    prop_assert!(host.addresses.len() + host.aliases.len() <= bytes.len());
                }
            }
        }
    }
}
