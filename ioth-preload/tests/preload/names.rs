//! Names that only the node of the tests knows.

use ioth_node_proto::{AddrInfo, InterfaceAddress, Item, Op, REQUEST_ROOM, Reply, Request, Row, Wanted};

/// How many interfaces there are: more than a reply tells at once.
const INTERFACES: u32 = 300;

/// Answers requests about names and interfaces.
pub(crate) fn answer(request: &Request, payload: &[u8]) -> Option<(Reply, Vec<u8>)> {
    let args = request.args;
    let result = |result| Some((Reply { result, ..Reply::default() }, Vec::new()));
    match request.op {
        Op::Lookup => {
            let wanted = Wanted::parse(payload).unwrap();
            match (wanted.host, wanted.service) {
                (Some(b"www.test"), Some(b"http")) => {}
                (Some(b"error.test"), _) => {
                    let reply =
                        Reply { result: libc::EAI_SYSTEM, args: [libc::EHOSTDOWN, 0], ..Reply::default() };
                    return Some((reply, Vec::new()));
                }
                _ => return result(libc::EAI_NONAME),
            }
            assert_eq!(args, [libc::AI_CANONNAME, libc::AF_UNSPEC, libc::SOCK_STREAM, 0]);
            let mut v4 = [0; 16];
            v4[..8].copy_from_slice(&[2, 0, 0, 80, 10, 1, 2, 3]);
            let mut v6 = [0; 28];
            v6[..4].copy_from_slice(&[10, 0, 0, 80]);
            v6[23] = 7;
            Some(row(&[
                Item::Name(b"canonical.test"),
                Item::AddrInfo(AddrInfo { family: libc::AF_INET6, kind: 1, protocol: 6, addr: &v6 }),
                Item::AddrInfo(AddrInfo { family: libc::AF_INET, kind: 1, protocol: 6, addr: &v4 }),
            ]))
        }
        Op::NameInfo => {
            assert_eq!(payload, [2, 0, 0, 80, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
            Some(row(&[Item::Name(b"www.test"), Item::Service(b"http")]))
        }
        Op::HostByName | Op::HostByAddr => match payload {
            b"www.test" | [10, 1, 2, 3] => Some(row(&[
                Item::Name(b"www.test"),
                Item::Alias(b"alias.test"),
                Item::Alias(b"other.test"),
                Item::Address(&[10, 1, 2, 3]),
                Item::Address(&[10, 1, 2, 4]),
            ])),
            b"later.test" => result(2),
            b"data.test" => result(4),
            _ => result(1),
        },
        Op::Interfaces => {
            let (mut answer, mut told) = (Vec::new(), args[0] as u32);
            while told < 2 * INTERFACES {
                let (name, index) = (format!("port{}", told % INTERFACES), told % INTERFACES + 1);
                let mut addr = [0; 20];
                let family = if told < INTERFACES { libc::AF_PACKET } else { libc::AF_INET };
                addr[..2].copy_from_slice(&(family as u16).to_ne_bytes());
                let len = if told < INTERFACES { 20 } else { 16 };
                let item = Item::Interface(InterfaceAddress {
                    index,
                    flags: libc::IFF_UP as u32,
                    name: name.as_bytes(),
                    addr: &addr[..len],
                    netmask: if told < INTERFACES { &[] } else { &addr[..16] },
                    other: &[],
                    stats: if told < INTERFACES { &[9; InterfaceAddress::STATS_LEN] } else { &[] },
                });
                let (_, item) = row(&[item]);
                if answer.len() + item.len() > 10_000 {
                    break;
                }
                answer.extend(item);
                told += 1;
            }
            Some((Reply { args: [2 * INTERFACES as i32, 0], ..Reply::default() }, answer))
        }
        Op::Resolve => match payload {
            b"www.test" | b"www.search.test" => Some((Reply::default(), vec![args[2] as u8; 600])),
            _ => Some((Reply { result: -1, args: [1, 0], ..Reply::default() }, vec![3; 12])),
        },
        Op::Exchange => Some((Reply::default(), payload.iter().rev().copied().collect())),
        _ => None,
    }
}

fn row(items: &[Item<'_>]) -> (Reply, Vec<u8>) {
    let mut bytes = vec![0; REQUEST_ROOM];
    let mut len = 0;
    for item in items {
        len += item.emit(&mut bytes[len..]).unwrap();
    }
    bytes.truncate(len);
    assert_eq!(Row::new(&bytes).count(), items.len());
    (Reply::default(), bytes)
}
