use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn listener(port: u16) -> Entry {
    Entry {
        family: libc::AF_INET as u8,
        protocol: libc::IPPROTO_TCP as u8,
        state: LISTEN,
        local: SocketAddr::from(([10, 0, 0, 1], port)),
        peer: SocketAddr::from(([0, 0, 0, 0], 0)),
        device: 0,
        unread: 1,
        unsent: 128,
        cookie: u64::from(port),
        only_ipv6: false,
        info: vec![LISTEN; 104],
        user: 1000,
        inode: 4711,
        buffers: [131_072, 16_384],
        congestion: b"cubic\0".to_vec(),
        remaining: None,
    }
}

/// What ss(8) sends for `-4 -l -n -t`, with further bytes behind the request.
fn request(flags: u16, family: u8, protocol: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((72 + more.len() as u32).to_ne_bytes());
    bytes.extend(20u16.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(123_456u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend((1u32 << CLOSE | 1 << LISTEN).to_ne_bytes());
    bytes.extend([0; 48]);
    bytes.extend(more);
    bytes
}

const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
const INET: u8 = libc::AF_INET as u8;
const TCP: u8 = libc::IPPROTO_TCP as u8;

fn ports(answers: &[Vec<u8>]) -> Vec<u16> {
    let mut ports = Vec::new();
    for mut answer in answers.iter().map(|answer| &answer[..]) {
        while answer.len() >= 16 {
            let len = u32::from_ne_bytes(answer[..4].try_into().unwrap()) as usize;
            if answer[4..6] == 20u16.to_ne_bytes() {
                ports.push(u16::from_be_bytes([answer[20], answer[21]]));
            }
            answer = &answer[len..];
        }
    }
    ports
}

#[test]
fn a_dump_shows_what_is_asked_for_and_ends() {
    let entries = [listener(80), Entry { state: ESTABLISHED, ..listener(81) }, listener(82)];
    let answers = answers(&request(DUMP, INET, TCP, &[]), 7, &entries);
    assert_eq!(ports(&answers), [80, 82]);
    let done = answers.last().unwrap();
    assert_eq!(done[4..6], (libc::NLMSG_DONE as u16).to_ne_bytes());
    assert_eq!(done[12..16], 7u32.to_ne_bytes());
    // struct inet_diag_msg: family and state, then the id with port and address.
    assert_eq!(answers[0][16..18], [INET, LISTEN]);
    assert_eq!(answers[0][24..28], [10, 0, 0, 1]);
    assert_eq!(answers[0][72..80], [1u32.to_ne_bytes(), 128u32.to_ne_bytes()].concat());
}

#[test]
fn a_dump_of_many_comes_in_parts() {
    let entries: Vec<_> = (1..=1000).map(listener).collect();
    let answers = answers(&request(DUMP, INET, TCP, &[]), 7, &entries);
    assert_eq!(ports(&answers), (1..=1000).collect::<Vec<_>>());
    assert!(answers.iter().all(|answer| answer.len() <= 8 << 10));
}

#[test]
fn filters_are_obeyed() {
    // sport = :80 or sport = :82, as iproute2 compiles it: (code, yes, no) and the operand.
    let op = |code: u8, yes: u8, no: u16| [&[code, yes][..], &no.to_ne_bytes()].concat();
    let filter = [op(11, 8, 12), op(0, 0, 80), op(1, 4, 12), op(11, 8, 12), op(0, 0, 82)].concat();
    let mut attribute = [((4 + filter.len()) as u16).to_ne_bytes(), 1u16.to_ne_bytes()].concat();
    attribute.extend(filter);
    let entries: Vec<_> = (80..=83).map(listener).collect();
    assert_eq!(ports(&answers(&request(DUMP, INET, TCP, &attribute), 7, &entries)), [80, 82]);
    // dst 10.0.0.0/8 has none of them, src 10.0.0.0/8 all.
    for (code, count) in [(7, 4), (8, 0)] {
        let condition =
            [&op(code, 16, 20)[..], &[INET, 8, 0, 0], &(-1i32).to_ne_bytes(), &[10, 0, 0, 0]].concat();
        let mut attribute = [20u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
        attribute.extend(condition);
        assert_eq!(
            ports(&answers(&request(DUMP, INET, TCP, &attribute), 7, &entries)).len(),
            count,
            "{code}"
        );
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let errno = |request: &[u8]| {
        let answers = answers(request, 7, &[listener(80)]);
        assert_eq!(answers[0][4..6], (libc::NLMSG_ERROR as u16).to_ne_bytes());
        i32::from_ne_bytes(answers[0][16..20].try_into().unwrap())
    };
    assert_eq!(errno(&request(DUMP, libc::AF_UNIX as u8, 0, &[])), -libc::ENOENT);
    assert_eq!(errno(&request(DUMP, INET, 132, &[])), -libc::ENOENT, "no SCTP");
    assert_eq!(errno(&request(libc::NLM_F_REQUEST as u16, INET, TCP, &[])), -libc::ENOENT, "no such socket");
    let mut destroy = request(DUMP, INET, TCP, &[]);
    destroy[4..6].copy_from_slice(&21u16.to_ne_bytes());
    assert_eq!(errno(&destroy), -libc::EOPNOTSUPP);
}

proptest! {
    #[test]
    fn filters_end_whatever_they_are(filter in proptest::collection::vec(0u8..16, 0..400)) {
        let mut attribute = [((4 + filter.len()) as u16).to_ne_bytes(), 1u16.to_ne_bytes()].concat();
        attribute.extend(&filter);
        answers(&request(DUMP, INET, TCP, &attribute), 7, &[listener(80)]);
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        answers(&bytes, 7, &[listener(80)]);
    }
}

#[test]
fn what_is_asked_for_besides() {
    let entries = [Entry { state: ESTABLISHED, unread: 5, unsent: 6, ..listener(80) }];
    let mut request = request(DUMP, INET, TCP, &[]);
    // The extensions MEMINFO, INFO, CONG, SKMEMINFO; all states.
    request[18] = 0b100_1011;
    request[20..24].fill(0xff);
    let answers = answers(&request, 7, &entries);
    let message = &answers[0][16..];
    let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
    assert_eq!((word(64), word(68)), (1000, 4711), "the user and the inode");
    let mut attributes = &message[72..u32::from_ne_bytes(answers[0][..4].try_into().unwrap()) as usize - 16];
    let mut found = Vec::new();
    while attributes.len() >= 4 {
        let [len, kind] = [0, 2].map(|at| u16::from_ne_bytes([attributes[at], attributes[at + 1]]));
        found.push((kind, attributes[4..len.into()].to_vec()));
        attributes = &attributes[usize::from(len).next_multiple_of(4)..];
    }
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            (1, words(&[5, 6, 0, 0])),
            (7, words(&[5, 131_072, 0, 16_384, 0, 6, 0, 0, 0])),
            (2, entries[0].info.clone()),
            (4, b"cubic\0".to_vec()),
        ]
    );
}

#[test]
fn time_wait_says_how_long() {
    let entries = [Entry { state: 6, remaining: Some(Duration::from_millis(1500)), ..listener(80) }];
    let mut request = request(DUMP, INET, TCP, &[]);
    request[20..24].fill(0xff);
    let answers = answers(&request, 7, &entries);
    assert_eq!(answers[0][17..20], [6, 3, 0], "the state, the timer, no retransmission");
    assert_eq!(answers[0][68..72], 1500u32.to_ne_bytes());
}
