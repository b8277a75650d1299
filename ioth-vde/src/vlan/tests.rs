use proptest::prelude::*;

use super::*;

fn rules(text: &str) -> Rules {
    Rules::parse(text, text).unwrap_or_else(|error| panic!("{error}"))
}

/// A frame with these tags, outermost first.
fn frame(tags: &[(u16, u16)]) -> Frame {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (kind, control) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(control.to_be_bytes());
    }
    bytes.extend([0x88, 0xb5]);
    bytes.extend([7; 46]);
    Frame::copy_of(&bytes)
}

/// What becomes of a frame of the node, by its tags.
fn sent(rules: &Rules, tags: &[(u16, u16)]) -> Option<Vec<u8>> {
    let mut frame = frame(tags);
    rules.send(&mut frame).then(|| frame.to_vec())
}

fn received(rules: &Rules, tags: &[(u16, u16)]) -> Option<Vec<u8>> {
    let mut frame = frame(tags);
    rules.receive(&mut frame).then(|| frame.to_vec())
}

fn as_is(tags: &[(u16, u16)]) -> Option<Vec<u8>> {
    Some(frame(tags).to_vec())
}

const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

#[test]
fn an_access_port() {
    let rules = rules("3");
    assert_eq!(sent(&rules, &[]), as_is(&[(Q, 3)]));
    assert_eq!(received(&rules, &[(Q, 3)]), as_is(&[]));
    // With any priority.
    assert_eq!(received(&rules, &[(Q, 0xe003)]), as_is(&[]));
    for other in [&[][..], &[(Q, 4)], &[(Q, 4095)], &[(AD, 3)]] {
        assert_eq!(received(&rules, other), None, "{other:?}");
    }
    assert_eq!(sent(&rules, &[(Q, 3)]), None);
    // The null VLAN has a priority only, which stays.
    assert_eq!(sent(&rules, &[(Q, 0xa000)]), as_is(&[(Q, 0xa003)]));
    assert_eq!(received(&rules, &[(Q, 0xa000)]), None);
}

#[test]
fn upstreams_example() {
    let rules = rules("3[untag=4/trunk/tag=10:11-12:12-11]");
    for (node, network) in [
        (&[][..], &[(Q, 3)][..]),
        (&[(Q, 4)], &[]),
        (&[(Q, 0x200a)], &[(Q, 0x200a)]),
        (&[(Q, 11)], &[(Q, 12)]),
        (&[(Q, 12)], &[(Q, 11)]),
        (&[(Q, 99)], &[(Q, 99)]),
        (&[(Q, 11), (Q, 5)], &[(Q, 12), (Q, 5)]),
    ] {
        assert_eq!(sent(&rules, node), as_is(network), "{node:?}");
        assert_eq!(received(&rules, network), as_is(node), "{network:?}");
    }
    // Their other names belong to nobody.
    assert_eq!((sent(&rules, &[(Q, 3)]), received(&rules, &[(Q, 4)])), (None, None));
}

#[test]
fn nothing_said_passes_untagged_frames_alone() {
    for text in ["", "0", "[untag=0]"] {
        let rules = rules(text);
        assert_eq!((sent(&rules, &[]), received(&rules, &[])), (as_is(&[]), as_is(&[])));
        assert_eq!((sent(&rules, &[(Q, 1)]), received(&rules, &[(Q, 1)])), (None, None));
    }
    let trunk = rules("[x]");
    assert_eq!((sent(&trunk, &[(Q, 1)]), received(&trunk, &[(Q, 1)])), (as_is(&[(Q, 1)]), as_is(&[(Q, 1)])));
}

#[test]
fn a_providers_tag_goes_around_a_customers() {
    for text in ["5/qinq", "5[q]", "5/ad"] {
        let rules = rules(text);
        assert_eq!(sent(&rules, &[(Q, 4)]), as_is(&[(AD, 5), (Q, 4)]), "{text}");
        assert_eq!(received(&rules, &[(AD, 5), (Q, 4)]), as_is(&[(Q, 4)]));
    }
}

#[test]
fn a_second_tag_is_no_way_into_another_vlan() {
    let rules = rules("3[untag=4/trunk]");
    assert_eq!(sent(&rules, &[(Q, 4), (Q, 8)]), None);
    assert_eq!(sent(&rules, &[(Q, 0), (Q, 8)]), None);
    assert_eq!(received(&rules, &[(Q, 3), (Q, 8)]), None);
    assert_eq!(received(&rules, &[(Q, 8), (Q, 3)]), as_is(&[(Q, 8), (Q, 3)]));
}

#[test]
fn what_has_no_whole_tag() {
    let rules = rules("3[trunk]");
    let mut short = Frame::copy_of(&frame(&[(Q, 3)])[..16]);
    assert!(!rules.receive(&mut short));
    let mut header = Frame::copy_of(&frame(&[])[..13]);
    assert!(!rules.send(&mut header));
}

#[test]
fn room_for_the_tag_is_made() {
    let rules = rules("3");
    let mut full = frame(&[]);
    full.push_front(Frame::HEADROOM - 2);
    full.pull_front(Frame::HEADROOM - 2);
    full.push_front(Frame::HEADROOM);
    let len = full.len();
    full[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert!(rules.send(&mut full));
    assert_eq!((full.len(), &full[12..16]), (len + 4, &[0x81, 0, 0, 3][..]));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("x", "VLAN \"x\""),
        ("4095", "VLAN \"4095\""),
        ("3[untag=9999]", "\"untag=9999\""),
        ("3[tag=1:x]", "\"x\" of \"tag=1:x\""),
        ("3[tag=1-2-3]", "\"1-2-3\""),
        ("3[tag=7-3]", "has its place already"),
        ("3[untag=7/tag=7]", "has its place already"),
        ("3[tag=7:7]", "has its place already"),
        ("3[tag=7:8-7]", "has its place already"),
        ("3[trunk=2]", "a flag"),
        ("3[colour]", "unknown key"),
        ("3[tag=1", "without ']'"),
    ] {
        let vnl = format!("vlan://{text}{{null://}}");
        let error = crate::open(&vnl).unwrap_err();
        assert!(matches!(error, LinkError::Syntax(_)) && error.to_string().contains(part), "{vnl}: {error}");
    }
    assert!(crate::open("vlan://3{null://}/tag=3").unwrap_err().to_string().contains("before the '{'"));
    assert!(crate::open("vlan://3").is_err());
    let narrow = crate::open("vlan://3/qinq{switch://narrow-for-tags[mtu=70]}").unwrap_err();
    assert!(narrow.to_string().contains("no room"), "{narrow}");
}

#[test]
fn over_a_lan_with_its_counters() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    #[derive(Debug, Default)]
    struct Count(AtomicUsize);
    impl Receiver for Count {
        fn receive(&self, frames: &mut Batch) {
            self.0.fetch_add(frames.drain(..).count(), Ordering::Relaxed);
        }
        fn writable(&self) {}
        fn down(&self, _: LinkError) {}
    }
    let links = ["3", "3", "4[tag=3]"]
        .map(|vlan| crate::open(&format!("vlan://{vlan}{{hub://vlans[mtu=1500]}}")).unwrap());
    let seen = links.each_ref().map(|link| {
        let seen = Arc::<Count>::default();
        link.attach(seen.clone()).unwrap();
        seen
    });
    let counts = || seen.each_ref().map(|seen| seen.0.load(Ordering::Relaxed));
    links[0].send(&mut [frame(&[]), frame(&[(Q, 8)]), Frame::copy_of(&[0; 3])].into()).unwrap();
    assert_eq!(counts(), [0, 1, 1]);
    links[2].send(&mut [frame(&[]), frame(&[(Q, 3)])].into()).unwrap();
    assert_eq!(counts(), [1, 2, 1]);
    let counters = links.each_ref().map(|link| link.counters());
    assert_eq!((counters[0].tx_frames, counters[0].tx_unreachable, counters[0].tx_bad_length), (1, 1, 1));
    assert_eq!((counters[0].rx_frames, counters[0].rx_bad_header), (1, 1));
    assert_eq!((counters[2].rx_frames, counters[2].tx_frames), (1, 2));
    assert_eq!(crate::open("vlan://3/ad{hub://vlans}").unwrap().properties().mtu, 1492);
}

proptest! {
    #[test]
    fn any_text(text in r"[0-9a-z\[\]/=:.-]{0,30}") {
        let _ = Rules::parse(&text, &text);
    }

    /// What goes out comes back as it was, but for the priority in a tag that was taken out; and no two VLANs become one.
    #[test]
    fn there_and_back(
        own in 0..6u16, untag in 0..6u16, trunk: bool,
        list in proptest::collection::vec((1..6u16, 1..6u16), 0..4),
        controls in proptest::collection::vec(prop_oneof![1..8u16, any::<u16>()], 0..3),
    ) {
        let list: Vec<_> = list.iter().map(|(node, network)| format!("{node}-{network}")).collect();
        let text = format!("{own}[untag={untag}/trunk={}/tag={}]", u8::from(trunk), list.join(":"));
        let Ok(rules) = Rules::parse(&text, &text) else { return Ok(()) };
        let tags: Vec<_> = controls.iter().map(|control| (Q, *control)).collect();
        let mut there = frame(&tags);
        if rules.send(&mut there) {
            prop_assert!(rules.receive(&mut there), "{text} {tags:?}");
            let mut expected = tags.clone();
            if let Some((_, control)) = expected.first_mut() {
                let id = *control & 0xfff;
                if untag != 0 && id == untag {
                    *control = id;
                } else if id == 0 && own != 0 {
                    expected.remove(0);
                }
            }
            prop_assert_eq!(&there[..], &frame(&expected)[..], "{} {:?}", text, tags);
        }
    }
}
