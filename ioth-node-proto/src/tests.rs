use std::vec::Vec;

use proptest::prelude::*;

use super::*;

#[test]
fn an_end_says_what_it_is() {
    let name = EndName { node: 0xc0ff_ee00_c0ff_ee01, socket: 42, domain: 2, kind: 1, protocol: 6 };
    assert_eq!(&name.emit(), b"ioth/c0ffee00c0ffee01/000000000000002a/0002.0001.0006");
    assert_eq!(EndName::parse(&name.emit()), Some(name));
    assert!(name.is_stream());
    for at in [0, 21, 38, 43, 48, 52] {
        let mut wrong = name.emit();
        wrong[at] = b'x';
        assert_eq!(EndName::parse(&wrong), None, "{at}");
    }
}

#[test]
fn a_place_is_a_name_and_a_token() {
    let place = Place::new("ioth/1f-2.c", [0xa5; 16]).unwrap();
    let mut text = [0; Place::TEXT_MAX];
    let len = place.emit(&mut text);
    assert_eq!(&text[..len], b"ioth/1f-2.c:a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5");
    assert_eq!(Place::parse(&text[..len]), Some(place));
    for wrong in
        ["", ":", "a:b", "a b:a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5", "a:A5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"]
    {
        assert_eq!(Place::parse(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(Place::new(&"a".repeat(Place::NAME_MAX + 1), [0; 16]), None);
}

#[test]
fn states_are_priorities_that_need_no_privilege() {
    for priority in -1..8 {
        if let Some(state) = State::from_priority(priority) {
            assert_eq!(state.priority(), priority);
            assert!((0..=6).contains(&priority));
        }
    }
}

#[test]
fn heads_requests_and_replies_come_back() {
    for kind in [HeadKind::Message, HeadKind::Error(111), HeadKind::Connection] {
        let head = Head { flags: 7, control_len: 24, ..Head::new(kind, &[1, 2, 3]) };
        assert_eq!(Head::parse(&head.emit()), Some(head));
        assert_eq!(head.addr(), [1, 2, 3]);
    }
    let request = Request { op: Op::Send, flags: 1, args: [1, -2, 3, 4], token: [9; 16] };
    let mut message = Vec::from(request.emit());
    message.extend(b"payload");
    assert_eq!(Request::parse(&message), Some((request, &b"payload"[..])));
    message[0] ^= 0xff;
    assert_eq!(Request::parse(&message), None, "another version");
    let reply = Reply { result: -111, flags: 1, args: [5, 6] };
    let mut message = Vec::from(reply.emit());
    message.push(1);
    assert_eq!(Reply::parse(&message), Some((reply, &[1][..])));
}

#[test]
fn rows_come_back_item_by_item() {
    let items = [
        Item::Name(b"example.org"),
        Item::Alias(b""),
        Item::Address(&[127, 0, 0, 1]),
        Item::AddrInfo(AddrInfo { family: 2, kind: 1, protocol: 6, addr: &[7; 16] }),
        Item::Service(b"http"),
        Item::Interface(InterfaceAddress {
            index: 2,
            flags: 0x1003,
            name: b"vde0",
            addr: &[1; 20],
            netmask: &[],
            other: &[3; 28],
            stats: &[4; InterfaceAddress::STATS_LEN],
        }),
    ];
    let mut payload = [0; 512];
    let mut len = 0;
    for item in &items {
        len += item.emit(&mut payload[len..]).unwrap();
    }
    assert_eq!(Row::new(&payload[..len]).collect::<Vec<_>>(), items);
    // What was cut off is no item.
    assert_eq!(Row::new(&payload[..len - 1]).count(), items.len() - 1);
    assert_eq!(items[0].emit(&mut [0; 14]), None, "no room");
    assert_eq!(Item::Name(&[b'a'; 70_000]).emit(&mut [0; 80_000]), None, "more than a length can say");
    let long = Item::AddrInfo(AddrInfo { family: 2, kind: 1, protocol: 6, addr: &[0; ADDR_MAX + 1] });
    assert_eq!(long.emit(&mut payload), None);
}

#[test]
fn a_null_pointer_is_not_an_empty_text() {
    for (host, service) in [(None, Some("")), (Some(""), None), (Some("a.b"), Some("80")), (None, None)] {
        let wanted = Wanted { host: host.map(str::as_bytes), service: service.map(str::as_bytes) };
        let mut payload = [0; 16];
        let len = wanted.emit(&mut payload).unwrap();
        assert_eq!(Wanted::parse(&payload[..len]), Some(wanted));
        assert_eq!(Wanted::parse(&payload[..len + 1]), None);
        assert_eq!(Wanted::parse(&payload[..len - 1]), None);
    }
    let with_nul = Wanted { host: Some(b"a\0b"), service: None };
    assert_eq!(with_nul.emit(&mut [0; 16]), None);
}

proptest! {
    /// Whatever parses, is what was written: no two forms of the same thing, and no panic.
    #[test]
    fn parsers_take_only_what_emitters_give(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        if let Some(head) = Head::parse(&bytes) {
            prop_assert_eq!(Head::parse(&head.emit()), Some(head));
            let _ = head.addr();
        }
        if let Some((request, payload)) = Request::parse(&bytes) {
            prop_assert_eq!(&request.emit()[..], &bytes[..Request::LEN]);
            prop_assert_eq!(payload, &bytes[Request::LEN..]);
        }
        if let Some((reply, _)) = Reply::parse(&bytes) {
            prop_assert_eq!(&reply.emit()[..], &bytes[..Reply::LEN]);
        }
        let (mut row, mut at) = ([0; 128], 0);
        for item in Row::new(&bytes) {
            at += item.emit(&mut row[at..]).unwrap();
        }
        prop_assert_eq!(&row[..at], &bytes[..at]);
        if let Some(wanted) = Wanted::parse(&bytes) {
            let len = wanted.emit(&mut row);
            prop_assert_eq!(len.map(|len| &row[..len]), Some(&bytes[..]));
        }
        if let Some(name) = EndName::parse(&bytes) {
            prop_assert_eq!(&name.emit()[..], &bytes[..]);
        }
        if let Some(place) = Place::parse(&bytes) {
            let mut text = [0; Place::TEXT_MAX];
            let len = place.emit(&mut text);
            prop_assert_eq!(&text[..len], &bytes[..]);
        }
    }
}
