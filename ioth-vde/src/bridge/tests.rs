use proptest::prelude::*;

use super::*;

/// A frame to and from stations by their last byte, 0xff for everybody.
fn frame(to: u8, from: u8, tag: Option<u16>) -> Vec<u8> {
    let mac = |last: u8| if last == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, last] };
    let mut frame = [mac(to), mac(from)].concat();
    if let Some(control) = tag {
        frame.extend([0x81, 0]);
        frame.extend(control.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.resize(64, 0);
    frame
}

fn bridge(ports: &[u16]) -> Bridge {
    let mut bridge = Bridge::new(Config::default());
    for &port in ports {
        bridge.create(usize::from(port)).unwrap();
        bridge.activate(port, true);
    }
    bridge
}

fn forward(bridge: &mut Bridge, now: u32, from: u16, frame: &[u8]) -> Result<Vec<(u16, Form)>, Loss> {
    let mut to = Vec::new();
    bridge.forward(now, from, frame, &mut to).map(|()| to)
}

use Form::{Retagged, Same, Tagged, Untagged};

#[test]
fn learns_and_floods() {
    let mut sw = bridge(&[1, 2, 3]);
    assert_eq!(forward(&mut sw, 0, 1, &frame(2, 1, None)), Ok(vec![(2, Same), (3, Same)]));
    assert_eq!(forward(&mut sw, 0, 2, &frame(1, 2, None)), Ok(vec![(1, Same)]));
    assert_eq!(forward(&mut sw, 0, 3, &frame(2, 3, None)), Ok(vec![(2, Same)]));
    assert_eq!(forward(&mut sw, 0, 1, &frame(0xff, 1, None)), Ok(vec![(2, Same), (3, Same)]));
    // Both behind one port.
    assert_eq!(forward(&mut sw, 0, 1, &frame(1, 9, None)), Err(Loss::Local));
    // It was silent for too long.
    assert_eq!(forward(&mut sw, 101, 3, &frame(2, 3, None)), Ok(vec![(1, Same), (2, Same)]));
    let counters = sw.counters(1);
    assert_eq!((counters.rx_frames, counters.rx_bytes, counters.dropped[Loss::Local as usize]), (3, 192, 1));
    // Who has left is known no more.
    sw.activate(1, false);
    assert_eq!(forward(&mut sw, 0, 2, &frame(1, 2, None)), Ok(vec![(3, Same)]));
}

#[test]
fn group_addresses_are_not_learned() {
    let mut sw = bridge(&[1, 2, 3]);
    let mut odd = frame(3, 0xff, None);
    forward(&mut sw, 0, 1, &odd).unwrap();
    odd[6..12].fill(0);
    forward(&mut sw, 0, 1, &odd).unwrap();
    assert_eq!(sw.occupancy().0, 0);
}

#[test]
fn bad_lengths() {
    let mut sw = bridge(&[1, 2]);
    let whole = frame(0xff, 1, Some(0));
    for len in 0..HEADER + TAG {
        assert_eq!(forward(&mut sw, 0, 1, &whole[..len]), Err(Loss::Short), "{len}");
    }
    assert!(forward(&mut sw, 0, 1, &whole[..HEADER + TAG]).is_ok());
    assert!(forward(&mut sw, 0, 1, &vec![0xff; FRAME_MAX]).is_ok());
    assert_eq!(forward(&mut sw, 0, 1, &vec![0xff; FRAME_MAX + 1]), Err(Loss::Long));
    assert_eq!(forward(&mut sw, 0, 7, &whole), Err(Loss::Vlan));
}

#[test]
fn a_transparent_switch_knows_stations_by_vlan_and_leaves_tags() {
    let mut sw = Bridge::new(Config { transparent: true, ..Config::default() });
    for port in [1, 2, 3] {
        sw.create(port).unwrap();
        sw.activate(port as u16, true);
    }
    // Priority and the drop bit are no part of the VLAN; 0 is the VLAN of what has no tag.
    for (tag, same) in [(5, 0xb005), (0x400, 0x400), (0xfff, 0x1fff), (0, 0xe000)] {
        let everybody = Ok(vec![(2, Same), (3, Same)]);
        assert_eq!(forward(&mut sw, 0, 1, &frame(2, 1, Some(tag))), everybody, "{tag:#x}");
        assert_eq!(forward(&mut sw, 0, 2, &frame(1, 2, Some(same))), Ok(vec![(1, Same)]), "{tag:#x}");
        assert_eq!(forward(&mut sw, 0, 1, &frame(2, 1, Some(tag))), Ok(vec![(2, Same)]), "{tag:#x}");
        assert_eq!(forward(&mut sw, 0, 1, &frame(0xff, 1, Some(tag))), everybody, "{tag:#x}");
    }
    assert_eq!(forward(&mut sw, 0, 1, &frame(2, 1, None)), Ok(vec![(2, Same)]));
    // 0x400 is a VLAN of its own, and so is each that nobody spoke in.
    assert_eq!(forward(&mut sw, 0, 3, &frame(2, 3, Some(6))), Ok(vec![(1, Same), (2, Same)]));
    assert_eq!(forward(&mut sw, 0, 1, &frame(1, 9, Some(5))), Err(Loss::Local));
    assert_eq!(forward(&mut sw, 0, 1, &frame(2, 1, Some(5))[..HEADER]), Err(Loss::Short));
    // What was lost is known when the port is not any more.
    sw.remove(1).unwrap();
    let lost = sw.lost();
    assert_eq!(
        (lost[Loss::Local as usize], lost[Loss::Short as usize], lost[Loss::Vlan as usize]),
        (1, 1, 0)
    );
}

/// What Debian's vde_switch does with the same frames on the same ports.
#[test]
fn vlans_as_vde_switch_has_them() {
    let mut sw = bridge(&[3, 4, 5]);
    sw.create_vlan(20).unwrap();
    sw.set_tagged(3, 20, true).unwrap();
    sw.set_tagged(4, 20, true).unwrap();
    sw.set_untagged(5, 20).unwrap();
    let mut go = |from, frame: &[u8]| forward(&mut sw, 0, from, frame);
    assert_eq!(go(3, &frame(0xff, 1, Some(20))), Ok(vec![(5, Untagged), (4, Same)]));
    assert_eq!(go(5, &frame(0xff, 3, None)), Ok(vec![(3, Tagged(20)), (4, Tagged(20))]));
    assert_eq!(go(5, &frame(1, 3, None)), Ok(vec![(3, Tagged(20))]));
    assert_eq!(go(3, &frame(3, 1, Some(20))), Ok(vec![(5, Untagged)]));
    // A priority tag, in VLAN 0.
    assert_eq!(go(3, &frame(0xff, 1, Some(0))), Ok(vec![(4, Untagged)]));
    assert_eq!(go(3, &frame(0xff, 1, Some(33))), Err(Loss::Vlan));
    // Priority 1; only 12 bits are the VLAN.
    assert_eq!(go(3, &frame(0xff, 1, Some(0x2014))), Ok(vec![(5, Untagged), (4, Same)]));
    assert_eq!(go(3, &frame(0xff, 1, Some(0x414))), Err(Loss::Vlan));
    sw.set_untagged(3, NO_VLAN).unwrap();
    assert_eq!(forward(&mut sw, 0, 3, &frame(0xff, 1, None)), Err(Loss::Vlan));
    assert_eq!(forward(&mut sw, 0, 5, &frame(0xff, 3, None)).unwrap().len(), 2);
}

/// IEEE 802.1Q-2018 §6.9.1: a tag of VLAN 0 tells a priority, and nothing of the VLAN.
#[test]
fn priority_tags_are_of_the_ports_vlan() {
    let mut sw = bridge(&[3, 4, 5, 6]);
    sw.create_vlan(20).unwrap();
    sw.set_untagged(3, 20).unwrap();
    sw.set_untagged(5, 20).unwrap();
    sw.set_tagged(4, 20, true).unwrap();
    // Priority 5.
    let tagged = |to, from| frame(to, from, Some(0xa000));
    assert_eq!(forward(&mut sw, 0, 3, &tagged(0xff, 1)), Ok(vec![(5, Untagged), (4, Retagged(20))]));
    assert_eq!(
        forward(&mut sw, 0, 4, &frame(1, 2, Some(20))),
        Ok(vec![(3, Untagged)]),
        "1 is known in VLAN 20"
    );
    assert_eq!(forward(&mut sw, 0, 3, &tagged(2, 1)), Ok(vec![(4, Retagged(20))]));
    assert_eq!(forward(&mut sw, 0, 5, &tagged(1, 7)), Ok(vec![(3, Untagged)]));
    // Port 4's untagged frames are of VLAN 0, and so are its priority-tagged ones.
    assert_eq!(forward(&mut sw, 0, 4, &tagged(0xff, 2)), Ok(vec![(6, Untagged)]));
    // No VLAN for what has none.
    sw.set_untagged(3, NO_VLAN).unwrap();
    assert_eq!(forward(&mut sw, 0, 3, &tagged(0xff, 1)), Err(Loss::Vlan));
    // Between two switches VLAN 0 may have tags as well, as vde_switch does it.
    sw.set_tagged(3, 0, true).unwrap();
    assert_eq!(forward(&mut sw, 0, 3, &tagged(0xff, 1)), Ok(vec![(4, Untagged), (6, Untagged)]));
    assert_eq!(forward(&mut sw, 0, 6, &frame(1, 9, None)), Ok(vec![(3, Tagged(0))]));
}

#[test]
fn a_hub_repeats() {
    let mut hub = bridge(&[0, 3, 4]);
    hub.set_hub(true);
    forward(&mut hub, 0, 3, &frame(0xff, 1, None)).unwrap();
    assert_eq!(forward(&mut hub, 0, 4, &frame(1, 2, Some(99))), Ok(vec![(0, Same), (3, Same)]));
    assert_eq!(hub.occupancy().0, 0);
}

#[test]
fn configuration_errors() {
    let mut sw = bridge(&[1]);
    assert_eq!(sw.create(1), Err(Errno::EEXIST));
    assert_eq!(sw.create(32), Err(Errno::EINVAL));
    assert_eq!(sw.remove(5), Err(Errno::ENXIO));
    assert_eq!(sw.set_limit(1), Err(Errno::EADDRINUSE));
    assert_eq!(sw.set_limit(0), Err(Errno::EINVAL));
    assert_eq!(sw.set_limit(PORTS_MAX + 1), Err(Errno::EINVAL));
    assert_eq!(sw.create_vlan(0), Err(Errno::EINVAL));
    assert_eq!(sw.create_vlan(4094), Err(Errno::EINVAL));
    sw.create_vlan(10).unwrap();
    assert_eq!(sw.create_vlan(10), Err(Errno::EEXIST));
    assert_eq!(sw.set_tagged(9, 10, true), Err(Errno::ENXIO));
    assert_eq!(sw.set_tagged(1, 11, true), Err(Errno::ENXIO));
    sw.set_tagged(1, 10, true).unwrap();
    assert_eq!(sw.remove_vlan(10), Err(Errno::EADDRINUSE));
    sw.set_untagged(1, 10).unwrap();
    assert_eq!(sw.members(10).unwrap(), [Member { port: 1, tagged: false, active: true }]);
    assert_eq!(sw.set_tagged(1, 10, false), Err(Errno::EADDRINUSE));
    assert_eq!(sw.set_tagged(1, 10, true), Ok(()));
    assert_eq!(sw.remove_vlan(10), Err(Errno::EADDRINUSE));
    assert_eq!(sw.remove_vlan(0), Err(Errno::EADDRINUSE));
    assert_eq!(sw.set_untagged(1, 4094), Err(Errno::EINVAL));
    assert_eq!(sw.set_untagged(1, 99), Err(Errno::ENXIO));
    sw.set_untagged(1, NO_VLAN).unwrap();
    sw.remove_vlan(10).unwrap();
    assert_eq!(sw.remove_vlan(10), Err(Errno::ENXIO));
    assert_eq!(sw.vlans().collect::<Vec<_>>(), [0]);
    sw.remove(1).unwrap();
    assert_eq!(sw.ports().count(), 0);
    sw.set_limit(PORTS_MAX).unwrap();
    assert_eq!(sw.create(PORTS_MAX - 1), Ok(u16::MAX));
}

proptest! {
    /// Whatever comes goes to active ports other than its own, each once, and changes its length as told.
    #[test]
    fn any_frames(
        frames in proptest::collection::vec(
            (0..6u16, proptest::collection::vec(any::<u8>(), 0..80), any::<bool>(), 0..4u16), 1..60),
        hub: bool,
    ) {
        let mut sw = bridge(&[0, 1, 2, 3]);
        sw.set_hub(hub);
        sw.create(4).unwrap();
        sw.create_vlan(1).unwrap();
        sw.set_tagged(1, 1, true).unwrap();
        sw.set_untagged(2, 1).unwrap();
        let mut to = Vec::new();
        for (from, mut frame, tagged, vlan) in frames {
            if tagged && frame.len() >= 16 {
                frame[12..14].copy_from_slice(&[0x81, 0]);
                frame[14..16].copy_from_slice(&vlan.to_be_bytes());
            }
            to.clear();
            let known = sw.exists(usize::from(from));
            let before = sw.counters(from);
            let outcome = sw.forward(0, from, &frame, &mut to);
            prop_assert!(known || outcome.is_err());
            prop_assert!(outcome.is_ok() || to.is_empty());
            prop_assert_eq!(sw.counters(from).rx_frames, before.rx_frames + u64::from(known));
            for (at, (port, form)) in to.iter().enumerate() {
                prop_assert!(sw.is_active(*port) && *port != from);
                prop_assert!(to[..at].iter().all(|(other, _)| other != port));
                prop_assert!(form.resize(frame.len()) >= HEADER);
            }
        }
    }
}
