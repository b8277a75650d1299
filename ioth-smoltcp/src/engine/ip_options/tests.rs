use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{IpOptions, Reading, enter};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const TIME: [u8; 4] = [0x04, 0x80, 0x88, 0xfc];

fn elsewhere(addr: Ipv4Addr) -> bool {
    addr != OWN
}

fn to_send(bytes: &[u8]) -> Result<IpOptions, usize> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    IpOptions::read(&mut bytes, Reading::ToSend, elsewhere)
}

/// What arrives, and what goes back.
fn arrive(bytes: &[u8]) -> Result<(Vec<u8>, Option<IpOptions>), usize> {
    let mut bytes = bytes.to_vec();
    IpOptions::read(&mut bytes, Reading::Arriving(OWN, TIME), elsewhere)?;
    let arrived = IpOptions::read(&mut bytes, Reading::Arrived, elsewhere)?;
    Ok((bytes, arrived.turned_round(elsewhere)))
}

fn route(kind: u8, hops: &[[u8; 4]]) -> Vec<u8> {
    [&[kind, 3 + 4 * hops.len() as u8, 4][..], &hops.concat()].concat()
}

#[test]
fn what_is_refused() {
    for (bytes, at) in [
        (&[7u8][..], 0),
        (&[7, 1, 1], 0),
        (&[7, 2, 0, 0], 1),
        (&[7, 9, 4, 0], 0),
        (&[7, 7, 5, 0, 0, 0, 0], 2),
        (&[7, 7, 3, 0, 0, 0, 0], 2),
        (&[7, 7, 4, 0, 0, 0, 0, 7, 7, 4, 0, 0, 0, 0], 7),
        (&[131, 3, 4], 1),
        (&[131, 6, 4, 10, 0, 0], 1),
        (&[131, 7, 8, 10, 0, 0, 2], 1),
        (&[137, 7, 3, 10, 0, 0, 2], 2),
        (&[1, 131, 7, 4, 10, 0, 0, 2, 137, 7, 4, 10, 0, 0, 2], 8),
        (&[68, 3, 5], 1),
        (&[68, 4, 4, 0], 2),
        (&[68, 8, 5, 1, 0, 0, 0, 0], 2),
        (&[68, 4, 5, 0xf0], 3),
        (&[148, 2], 1),
        (&[134, 8, 0, 0, 0, 1, 1, 2], 2),
    ] {
        assert_eq!(to_send(bytes), Err(at), "{bytes:?}");
    }
}

#[test]
fn what_is_set_is_told() {
    for bytes in [
        vec![],
        vec![1],
        vec![1; 39],
        vec![7, 39, 4],
        vec![7, 7, 8, 0, 0, 0, 0],
        vec![148, 4, 0, 0],
        vec![130, 11, 0, 0],
        vec![68, 12, 5, 0],
        vec![68, 20, 5, 1],
        vec![68, 12, 5, 3, 10, 0, 0, 1],
        vec![68, 12, 5, 3, 10, 0, 0, 2],
        vec![68, 12, 5, 7],
        route(131, &[[10, 0, 0, 2]]),
        route(137, &[[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 4]]),
    ] {
        let mut bytes = bytes;
        let len = bytes.get(1).map_or(0, |len| usize::from(*len)).max(bytes.len());
        bytes.resize(if bytes.first() == Some(&1) { bytes.len() } else { len }, 0);
        let options = to_send(&bytes).unwrap();
        let told = options.told();
        assert_eq!(told[..bytes.len()], bytes);
        assert!(told.len().is_multiple_of(4) && told[bytes.len()..].iter().all(|byte| *byte == 0));
    }
    // What is behind the end means nothing.
    assert_eq!(to_send(&[0, 1, 7, 9]).unwrap().told(), [0; 4]);
}

/// What the kernel said, on a wire between 10.77.0.1 and 10.77.0.2.
#[test]
fn what_arrives() {
    let own = OWN.octets();
    let peer = [10, 0, 0, 2];
    let same = |bytes: Vec<u8>| (bytes.clone(), Some(bytes));
    for (bytes, (arrived, told)) in [
        (vec![1, 0, 0, 0], (vec![1, 0, 0, 0], Some(vec![]))),
        (vec![148, 4, 0, 0], (vec![148, 4, 0, 0], Some(vec![]))),
        ([&[7, 11, 8][..], &peer, &[0; 5]].concat(), same([&[7, 11, 12][..], &peer, &own, &[0]].concat())),
        ([&[7, 7, 8][..], &peer, &[0]].concat(), same([&[7, 7, 8][..], &peer, &[0]].concat())),
        ([&[68, 12, 9, 0][..], &TIME, &[0; 4]].concat(), same([&[68, 12, 13, 0][..], &TIME, &TIME].concat())),
        (
            [&[68, 12, 13, 1][..], &peer, &TIME].concat(),
            same([&[68, 12, 13, 0x11][..], &peer, &TIME].concat()),
        ),
        (
            [&[68, 20, 13, 1][..], &peer, &TIME, &[0; 8]].concat(),
            same([&[68, 20, 21, 1][..], &peer, &TIME, &own, &TIME].concat()),
        ),
        ([&[68, 12, 5, 3][..], &own, &[0; 4]].concat(), same([&[68, 12, 13, 3][..], &own, &TIME].concat())),
        (vec![68, 4, 5, 0x20], same(vec![68, 4, 5, 0x30])),
    ] {
        let (got, reply) = arrive(&bytes).unwrap();
        assert_eq!(got, arrived, "{bytes:?}");
        assert_eq!(reply.map(|reply| reply.told()), told, "{bytes:?}");
    }
    // No room for a whole entry any more: it cannot go back.
    let (_, reply) = arrive(&[7, 10, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(reply, None);
}

fn option() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(7u8), Just(68), Just(131), Just(137), Just(148), Just(134), any::<u8>()];
    let address = prop_oneof![Just(OWN.octets()), any::<[u8; 4]>()];
    let entries = proptest::collection::vec(address, 0..6);
    prop_oneof![
        1 => Just(vec![1]),
        1 => Just(vec![0]),
        6 => (kind, 0u8..44, 0u8..44, any::<u8>(), entries).prop_map(|(kind, len, pointer, flags, entries)| {
            let data = entries.concat();
            let head = match kind {
                68 => vec![kind, len, pointer, flags],
                _ => vec![kind, len, pointer],
            };
            let len = if flags & 1 == 0 { len } else { (head.len() + data.len()) as u8 };
            let mut option = [head, data].concat();
            option[1] = len;
            option
        }),
    ]
}

proptest! {
    /// Whatever is in a header or is set: nothing is out of bounds, and what was set is told again.
    #[test]
    fn any_options(parts in proptest::collection::vec(option(), 0..6)) {
        let mut bytes = parts.concat();
        bytes.truncate(40);
        if let Ok(options) = to_send(&bytes) {
            prop_assert_eq!(options.len() % 4, 0);
            prop_assert!(options.len() <= 40);
            // Entries that are not there yet may have been given as something else than zeroes.
            let told = options.told();
            prop_assert_eq!(to_send(&told).map(|again| again.told()), Ok(told));
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if let Ok((arrived, Some(reply))) = arrive(&bytes) {
            prop_assert_eq!(arrived.len(), bytes.len());
            prop_assert!(reply.len() <= arrived.len() && reply.len().is_multiple_of(4));
            let _ = reply.told();
        }
    }
}

#[test]
fn nothing_is_entered_outside() {
    let mut bytes = [0; 6];
    enter(&mut bytes, 3, &[1; 4]);
    enter(&mut bytes, usize::MAX - 1, &[1; 4]);
    assert_eq!(bytes, [0; 6]);
}
