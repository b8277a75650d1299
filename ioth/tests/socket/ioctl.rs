//! Requests about interfaces, addresses and routes by ioctl(2): netdevice(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Instant;

use ioth::Stack;
use ioth::berkeley::*;

use crate::fixture::*;

type Ifreq = [u8; 40];

/// A socket of a's, and the name and index of its interface that is not loopback.
pub(crate) fn device(pair: &Pair) -> (Fd, String, u32) {
    device_of(pair, &pair.a)
}

/// The same of another node.
pub(crate) fn device_of(pair: &Pair, stack: &Stack) -> (Fd, String, u32) {
    let fd = pair.socket(stack, libc::SOCK_DGRAM);
    let named = (2..20u32).find_map(|index| {
        let mut ifreq = ifreq("", &index.to_ne_bytes());
        ioctl(fd.0, libc::SIOCGIFNAME, &mut ifreq).ok()?;
        Some((name_of(&ifreq), index)).filter(|(name, _)| name != "lo")
    });
    let (name, index) = named.unwrap();
    (fd, name, index)
}

pub(crate) fn ifreq(name: &str, value: &[u8]) -> Ifreq {
    let mut ifreq = [0; 40];
    ifreq[..name.len()].copy_from_slice(name.as_bytes());
    ifreq[16..16 + value.len()].copy_from_slice(value);
    ifreq
}

fn name_of(ifreq: &[u8]) -> String {
    String::from_utf8(ifreq[..16].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
}

/// Asks, and gives what is behind the name.
fn ask(fd: &Fd, request: u64, name: &str) -> io::Result<[u8; 24]> {
    ask_with(fd, request, name, &[])
}

fn ask_with(fd: &Fd, request: u64, name: &str, value: &[u8]) -> io::Result<[u8; 24]> {
    let mut ifreq = ifreq(name, value);
    ioctl(fd.0, request, &mut ifreq)?;
    assert_eq!(name_of(&ifreq), name);
    Ok(*ifreq.last_chunk().unwrap())
}

fn int(fd: &Fd, request: u64, name: &str) -> i32 {
    i32::from_ne_bytes(*ask(fd, request, name).unwrap().first_chunk().unwrap())
}

fn flags(fd: &Fd, name: &str) -> i32 {
    i32::from(i16::from_ne_bytes(*ask(fd, libc::SIOCGIFFLAGS, name).unwrap().first_chunk().unwrap()))
}

fn sockaddr(addr: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&addr);
    bytes
}

/// The address, the mask and the broadcast address.
fn addresses_of(fd: &Fd, name: &str) -> io::Result<[[u8; 4]; 3]> {
    let one = |request| {
        let value = ask(fd, request, name)?;
        assert_eq!(value[..4], sockaddr([0; 4])[..4]);
        Ok::<_, io::Error>([value[4], value[5], value[6], value[7]])
    };
    Ok([one(libc::SIOCGIFADDR)?, one(libc::SIOCGIFNETMASK)?, one(libc::SIOCGIFBRDADDR)?])
}

fn set(fd: &Fd, request: u64, name: &str, addr: [u8; 4]) -> io::Result<()> {
    ask_with(fd, request, name, &sockaddr(addr)).map(drop)
}

#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

pub(crate) fn devices(pair: &Pair) {
    let (fd, name, index) = device(pair);
    assert_eq!(int(&fd, libc::SIOCGIFINDEX, &name), index as i32);
    assert_eq!(int(&fd, libc::SIOCGIFINDEX, "lo"), 1);
    assert_eq!(int(&fd, libc::SIOCGIFMTU, &name), 1500);
    assert_eq!(int(&fd, libc::SIOCGIFMETRIC, &name), 0);
    assert_eq!(int(&fd, libc::SIOCGIFTXQLEN, &name), 1000);
    let up = libc::IFF_UP | libc::IFF_BROADCAST | libc::IFF_RUNNING | libc::IFF_MULTICAST;
    // The kernel tells a link's state and ends an address's check in threads of its own.
    until(|| flags(&fd, &name) == up);
    assert_eq!(flags(&fd, "lo"), libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING);
    // An alias's name means its device.
    assert_eq!(int(&fd, libc::SIOCGIFINDEX, &format!("{name}:7")), index as i32);

    let mac = ask(&fd, libc::SIOCGIFHWADDR, &name).unwrap();
    assert_eq!(mac[..2], libc::ARPHRD_ETHER.to_ne_bytes());
    assert_eq!(ask(&fd, libc::SIOCGIFHWADDR, "lo").unwrap()[..8], [4, 3, 0, 0, 0, 0, 0, 0]);
    let other = [&libc::ARPHRD_ETHER.to_ne_bytes()[..], &[2, 0, 0, 1, 2, 3]].concat();
    ask_with(&fd, libc::SIOCSIFHWADDR, &name, &other).unwrap();
    assert_eq!(ask(&fd, libc::SIOCGIFHWADDR, &name).unwrap()[..8], other);
    let group = [&libc::ARPHRD_ETHER.to_ne_bytes()[..], &[3, 0, 0, 1, 2, 3]].concat();
    assert_eq!(errno(ask_with(&fd, libc::SIOCSIFHWADDR, &name, &group)), libc::EADDRNOTAVAIL);
    assert_eq!(errno(ask_with(&fd, libc::SIOCSIFHWADDR, &name, &[0, 0, 2])), libc::EINVAL);

    ask_with(&fd, libc::SIOCSIFMTU, &name, &1400i32.to_ne_bytes()).unwrap();
    assert_eq!(int(&fd, libc::SIOCGIFMTU, &name), 1400);
    for wrong in [-1i32, 67, 1 << 20] {
        assert_eq!(errno(ask_with(&fd, libc::SIOCSIFMTU, &name, &wrong.to_ne_bytes())), libc::EINVAL);
    }
    ask_with(&fd, libc::SIOCSIFFLAGS, &name, &[0; 2]).unwrap();
    assert_eq!(flags(&fd, &name) & libc::IFF_UP, 0);
    ask_with(&fd, libc::SIOCSIFFLAGS, &name, &(libc::IFF_UP as i16).to_ne_bytes()).unwrap();
    assert_ne!(flags(&fd, &name) & libc::IFF_UP, 0);

    let mut renamed = ifreq(&name, b"other0");
    ioctl(fd.0, libc::SIOCSIFNAME, &mut renamed).unwrap();
    assert_eq!(int(&fd, libc::SIOCGIFINDEX, "other0"), index as i32);
    assert_eq!(errno(ask(&fd, libc::SIOCGIFINDEX, &name)), libc::ENODEV);
    for (wrong, said) in [("lo", libc::EEXIST), ("", libc::EINVAL), ("a/b", libc::EINVAL)] {
        let mut renamed = ifreq("other0", wrong.as_bytes());
        assert_eq!(errno(ioctl(fd.0, libc::SIOCSIFNAME, &mut renamed)), said, "{wrong}");
    }
}

pub(crate) fn addresses(pair: &Pair) {
    let (fd, name, _) = device(pair);
    if pair.domain() == libc::AF_INET6 {
        // These are of IPv4 sockets only; those of other families have the requests of devices.
        for request in [libc::SIOCGIFADDR, libc::SIOCGIFNETMASK, libc::SIOCSIFNETMASK, libc::SIOCGIFDSTADDR] {
            assert_eq!(errno(ask(&fd, request, &name)), libc::ENOTTY);
        }
        return;
    }
    assert_eq!(addresses_of(&fd, &name).unwrap(), [[10, 9, 0, 1], [255, 255, 255, 0], [0; 4]]);
    assert_eq!(addresses_of(&fd, "lo").unwrap()[..2], [[127, 0, 0, 1], [255, 0, 0, 0]]);
    // The class decides about the prefix, and that about the broadcast address.
    for (addr, mask, broadcast) in [
        ([10, 1, 2, 3], [255, 0, 0, 0], [10, 255, 255, 255]),
        ([172, 16, 0, 9], [255, 255, 0, 0], [172, 16, 255, 255]),
        ([192, 168, 3, 4], [255, 255, 255, 0], [192, 168, 3, 255]),
        ([250, 0, 0, 1], [255, 255, 255, 255], [0; 4]),
    ] {
        set(&fd, libc::SIOCSIFADDR, &name, addr).unwrap();
        assert_eq!(addresses_of(&fd, &name).unwrap(), [addr, mask, broadcast]);
    }
    assert_eq!(errno(set(&fd, libc::SIOCSIFADDR, &name, [224, 0, 0, 1])), libc::EINVAL);
    set(&fd, libc::SIOCSIFADDR, &name, [192, 168, 3, 4]).unwrap();
    set(&fd, libc::SIOCSIFNETMASK, &name, [255, 255, 255, 240]).unwrap();
    let sixteen = [[192, 168, 3, 4], [255, 255, 255, 240], [192, 168, 3, 15]];
    assert_eq!(addresses_of(&fd, &name).unwrap(), sixteen);
    assert_eq!(errno(set(&fd, libc::SIOCSIFNETMASK, &name, [255, 0, 255, 0])), libc::EINVAL);
    set(&fd, libc::SIOCSIFBRDADDR, &name, [192, 168, 3, 14]).unwrap();
    // One that does not follow from the mask stays.
    set(&fd, libc::SIOCSIFNETMASK, &name, [255, 255, 255, 0]).unwrap();
    let own = [[192, 168, 3, 4], [255, 255, 255, 0], [192, 168, 3, 14]];
    assert_eq!(addresses_of(&fd, &name).unwrap(), own);
    // It is the address that sockets can have.
    let addr = (Ipv4Addr::from([192, 168, 3, 4]), 0);
    bind(fd.0, addr).unwrap();
    for (value, said) in [(&[0; 16][..], libc::EINVAL), (&[10, 0, 0, 0, 1, 2, 3, 4][..], libc::EINVAL)] {
        assert_eq!(errno(ask_with(&fd, libc::SIOCSIFADDR, &name, value)), said);
    }
    assert_eq!(errno(ask(&fd, libc::SIOCGIFADDR, "none0")), libc::ENODEV);
    assert_eq!(errno(set(&fd, libc::SIOCSIFADDR, "none0", [10, 0, 0, 1])), libc::ENODEV);
    // The unspecified address takes the other one away.
    set(&fd, libc::SIOCSIFADDR, &name, [0; 4]).unwrap();
    assert_eq!(errno(addresses_of(&fd, &name)), libc::EADDRNOTAVAIL);
    assert_eq!(errno(set(&fd, libc::SIOCSIFNETMASK, &name, [255, 0, 0, 0])), libc::EADDRNOTAVAIL);
}

pub(crate) fn aliases(pair: &Pair) {
    if pair.domain() == libc::AF_INET6 {
        return;
    }
    let (fd, name, _) = device(pair);
    let alias = format!("{name}:1");
    assert_eq!(errno(addresses_of(&fd, &alias)), libc::EADDRNOTAVAIL);
    set(&fd, libc::SIOCSIFADDR, &alias, [192, 168, 7, 1]).unwrap();
    assert_eq!(addresses_of(&fd, &alias).unwrap()[0], [192, 168, 7, 1]);
    assert_eq!(addresses_of(&fd, &name).unwrap()[0], [10, 9, 0, 1]);
    // By address rather than by name, when the structure has one that is there.
    let value = ask_with(&fd, libc::SIOCGIFNETMASK, &name, &sockaddr([192, 168, 7, 1])).unwrap();
    assert_eq!(value[4..8], [255, 255, 255, 0]);
    ask_with(&fd, libc::SIOCSIFFLAGS, &alias, &(libc::IFF_UP as i16).to_ne_bytes()).unwrap();
    assert_eq!(addresses_of(&fd, &alias).unwrap()[0], [192, 168, 7, 1]);
    ask_with(&fd, libc::SIOCSIFFLAGS, &alias, &[0; 2]).unwrap();
    assert_eq!(errno(addresses_of(&fd, &alias)), libc::EADDRNOTAVAIL);
    assert_eq!(errno(ask_with(&fd, libc::SIOCSIFFLAGS, &alias, &[0; 2])), libc::EADDRNOTAVAIL);
    assert_ne!(flags(&fd, &name) & libc::IFF_UP, 0);
}

pub(crate) fn address_list(pair: &Pair) {
    let (fd, name, _) = device(pair);
    let count = if pair.domain() == libc::AF_INET { 2 } else { 1 };
    assert_eq!(ioctl(fd.0, libc::SIOCGIFCONF, &mut []).unwrap(), 40 * count);
    let mut list = [0xff; 120];
    assert_eq!(ioctl(fd.0, libc::SIOCGIFCONF, &mut list).unwrap(), 40 * count);
    assert_eq!(name_of(&list), "lo");
    assert_eq!(list[16..32], sockaddr([127, 0, 0, 1]));
    if count == 2 {
        assert_eq!(name_of(&list[40..]), name);
        assert_eq!(list[56..72], sockaddr([10, 9, 0, 1]));
    }
    // Whole ones only.
    assert_eq!(ioctl(fd.0, libc::SIOCGIFCONF, &mut list[..79]).unwrap(), 40);
    assert_eq!(ioctl(fd.0, libc::SIOCGIFCONF, &mut list[..39]).unwrap(), 0);
}

/// A `struct rtentry`, and the name of a device behind it.
fn rtentry(dst: [u8; 4], mask: [u8; 4], gateway: [u8; 4], flags: u16, device: &str) -> Vec<u8> {
    let mut entry = vec![0; size_of::<libc::rtentry>()];
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    put(std::mem::offset_of!(libc::rtentry, rt_dst), &sockaddr(dst));
    put(std::mem::offset_of!(libc::rtentry, rt_genmask), &sockaddr(mask));
    if gateway != [0; 4] {
        put(std::mem::offset_of!(libc::rtentry, rt_gateway), &sockaddr(gateway));
    }
    put(std::mem::offset_of!(libc::rtentry, rt_flags), &flags.to_ne_bytes());
    if !device.is_empty() {
        put(std::mem::offset_of!(libc::rtentry, rt_dev), &[1]);
        entry.extend_from_slice(&ifreq(device, &[])[..16]);
    }
    entry
}

/// Where a packet would come from: `None` where there is no way.
fn way(pair: &Pair, to: IpAddr) -> Option<IpAddr> {
    let fd = pair.socket(&pair.a, libc::SOCK_DGRAM);
    connect(fd.0, (to, 9)).ok().map(|()| name(&fd).ip())
}

pub(crate) fn routes(pair: &Pair) {
    let (fd, name, _) = device(pair);
    if pair.domain() == libc::AF_INET6 {
        return;
    }
    let own = Some(pair.a_addr);
    let far: IpAddr = [172, 20, 1, 1].into();
    assert_eq!(way(pair, far), None);
    let (up, gateway) = (libc::RTF_UP, libc::RTF_UP | libc::RTF_GATEWAY);
    let mut through = rtentry([172, 20, 0, 0], [255, 255, 0, 0], [10, 9, 0, 2], gateway, "");
    ioctl(fd.0, libc::SIOCADDRT, &mut through).unwrap();
    assert_eq!(way(pair, far), own);
    assert_eq!(errno(ioctl(fd.0, libc::SIOCADDRT, &mut through)), libc::EEXIST);
    ioctl(fd.0, libc::SIOCDELRT, &mut through).unwrap();
    assert_eq!(way(pair, far), None);
    assert_eq!(errno(ioctl(fd.0, libc::SIOCDELRT, &mut through)), libc::ESRCH);
    // On the link of a device that is named.
    let mut linked = rtentry([172, 20, 1, 1], [0; 4], [0; 4], up | libc::RTF_HOST, &name);
    ioctl(fd.0, libc::SIOCADDRT, &mut linked).unwrap();
    assert_eq!(way(pair, far), own);
    assert_eq!(way(pair, [172, 20, 1, 2].into()), None);
    ioctl(fd.0, libc::SIOCDELRT, &mut linked).unwrap();
    // The default route.
    let mut default = rtentry([0; 4], [0; 4], [10, 9, 0, 2], gateway, &name);
    ioctl(fd.0, libc::SIOCADDRT, &mut default).unwrap();
    assert_eq!(way(pair, far), own);
    // What is refused on the way there.
    let mut rejected = rtentry([172, 20, 0, 0], [255, 255, 0, 0], [0; 4], up | libc::RTF_REJECT, "");
    ioctl(fd.0, libc::SIOCADDRT, &mut rejected).unwrap();
    assert_eq!(way(pair, far), None);
    ioctl(fd.0, libc::SIOCDELRT, &mut rejected).unwrap();
    ioctl(fd.0, libc::SIOCDELRT, &mut default).unwrap();
    for (mut wrong, said) in [
        (rtentry([172, 20, 0, 1], [255, 255, 0, 0], [10, 9, 0, 2], gateway, ""), libc::EINVAL),
        (rtentry([172, 20, 0, 0], [255, 0, 255, 0], [10, 9, 0, 2], gateway, ""), libc::EINVAL),
        (rtentry([172, 20, 0, 0], [255, 255, 0, 0], [0; 4], gateway, ""), libc::EINVAL),
        (rtentry([172, 20, 0, 0], [255, 255, 0, 0], [10, 7, 0, 2], gateway, ""), libc::ENETUNREACH),
        (rtentry([172, 20, 0, 0], [255, 255, 0, 0], [0; 4], up, "none0"), libc::ENODEV),
        (rtentry([172, 20, 0, 0], [255, 255, 0, 0], [0; 4], up, ""), libc::ENODEV),
    ] {
        assert_eq!(errno(ioctl(fd.0, libc::SIOCADDRT, &mut wrong)), said, "{wrong:?}");
    }
    let mut family = rtentry([172, 20, 0, 0], [255, 255, 0, 0], [10, 9, 0, 2], gateway, "");
    family[std::mem::offset_of!(libc::rtentry, rt_dst)] = libc::AF_INET6 as u8;
    assert_eq!(errno(ioctl(fd.0, libc::SIOCADDRT, &mut family)), libc::EAFNOSUPPORT);
}

pub(crate) fn ipv6_addresses(pair: &Pair) {
    let (fd, _, index) = device(pair);
    let in6 = |addr: &str, len: u32, index: u32| {
        let addr: Ipv6Addr = addr.parse().unwrap();
        [&addr.octets()[..], &len.to_ne_bytes(), &index.to_ne_bytes()].concat()
    };
    if pair.domain() == libc::AF_INET {
        assert_eq!(errno(ioctl(fd.0, libc::SIOCDIFADDR, &mut in6("fd0a::1", 64, index))), libc::ENOTTY);
        return;
    }
    ioctl(fd.0, libc::SIOCSIFADDR, &mut in6("fd0a::1", 64, index)).unwrap();
    assert_eq!(errno(ioctl(fd.0, libc::SIOCSIFADDR, &mut in6("fd0a::1", 64, index))), libc::EEXIST);
    until(|| way(pair, "fd0a::2".parse().unwrap()) == Some("fd0a::1".parse().unwrap()));
    assert_eq!(errno(ioctl(fd.0, libc::SIOCDIFADDR, &mut in6("fd0a::1", 60, index))), libc::EADDRNOTAVAIL);
    ioctl(fd.0, libc::SIOCDIFADDR, &mut in6("fd0a::1", 64, index)).unwrap();
    assert_eq!(way(pair, "fd0a::2".parse().unwrap()), None);
    for request in [libc::SIOCSIFADDR, libc::SIOCDIFADDR] {
        assert_eq!(errno(ioctl(fd.0, request, &mut in6("fd0a::1", 129, index))), libc::EINVAL);
        assert_eq!(errno(ioctl(fd.0, request, &mut in6("fd0a::1", 64, 999))), libc::ENODEV);
    }
}

pub(crate) fn ipv6_routes(pair: &Pair) {
    let (fd, _, index) = device(pair);
    if pair.domain() == libc::AF_INET {
        return;
    }
    let message = |len: u16, gateway: &str, index: u32| {
        let mut message = vec![0; 80];
        let far: Ipv6Addr = "fd0b::".parse().unwrap();
        message[..16].copy_from_slice(&far.octets());
        let mut flags = libc::RTF_UP;
        if !gateway.is_empty() {
            let gateway: Ipv6Addr = gateway.parse().unwrap();
            message[32..48].copy_from_slice(&gateway.octets());
            flags |= libc::RTF_GATEWAY;
        }
        message[52..54].copy_from_slice(&len.to_ne_bytes());
        message[72..74].copy_from_slice(&flags.to_ne_bytes());
        message[76..].copy_from_slice(&index.to_ne_bytes());
        message
    };
    let far = "fd0b::1".parse().unwrap();
    for mut route in [message(64, "fd09::2", 0), message(64, "fd09::2", index), message(64, "", index)] {
        assert_eq!(way(pair, far), None);
        ioctl(fd.0, libc::SIOCADDRT, &mut route).unwrap();
        assert_eq!(way(pair, far), Some(pair.a_addr));
        assert_eq!(errno(ioctl(fd.0, libc::SIOCADDRT, &mut route)), libc::EEXIST);
        ioctl(fd.0, libc::SIOCDELRT, &mut route).unwrap();
        assert_eq!(errno(ioctl(fd.0, libc::SIOCDELRT, &mut route)), libc::ESRCH);
    }
    for (mut wrong, said) in [
        (message(129, "fd09::2", index), libc::EINVAL),
        (message(64, "fd09::2", 999), libc::ENODEV),
        (message(64, "fd0c::2", 0), libc::EHOSTUNREACH),
        (message(64, "", 0), libc::ENODEV),
    ] {
        assert_eq!(errno(ioctl(fd.0, libc::SIOCADDRT, &mut wrong)), said, "{wrong:?}");
    }
}

pub(crate) fn descriptors_own(pair: &Pair) {
    let (fd, ..) = device(pair);
    ioctl(fd.0, libc::FIONBIO as _, &mut 1i32.to_ne_bytes()).unwrap();
    assert_ne!(fcntl(fd.0, libc::F_GETFL, 0).unwrap() & libc::O_NONBLOCK, 0);
    ioctl(fd.0, libc::FIOASYNC as _, &mut 1i32.to_ne_bytes()).unwrap();
    assert_ne!(fcntl(fd.0, libc::F_GETFL, 0).unwrap() & libc::O_ASYNC, 0);
    ioctl(fd.0, libc::FIOASYNC as _, &mut 0i32.to_ne_bytes()).unwrap();
    assert_eq!(fcntl(fd.0, libc::F_GETFL, 0).unwrap() & libc::O_ASYNC, 0);
    ioctl(fd.0, libc::FIOCLEX as _, &mut []).unwrap();
    assert_eq!(fcntl(fd.0, libc::F_GETFD, 0).unwrap(), libc::FD_CLOEXEC);
    ioctl(fd.0, libc::FIONCLEX as _, &mut []).unwrap();
    assert_eq!(fcntl(fd.0, libc::F_GETFD, 0).unwrap(), 0);
    let process = std::process::id().to_ne_bytes();
    let (fiosetown, siocgpgrp) = (0x8901, 0x8904);
    ioctl(fd.0, fiosetown, &mut process.clone()).unwrap();
    let mut owner = [0; 4];
    ioctl(fd.0, siocgpgrp, &mut owner).unwrap();
    assert_eq!(owner, process);
}

pub(crate) fn unknown(pair: &Pair) {
    let (fd, name, _) = device(pair);
    let count = 0x8938;
    assert_eq!(errno(ask(&fd, count, &name)), libc::ENOTTY);
    assert_eq!(errno(ask(&fd, libc::SIOCGIFSLAVE, &name)), libc::EINVAL);
    assert_eq!(errno(ask(&fd, libc::SIOCSIFMETRIC, &name)), libc::EOPNOTSUPP);
    for request in [libc::SIOCGIFINDEX, libc::SIOCGIFFLAGS, libc::SIOCSIFFLAGS, libc::SIOCSIFMTU] {
        assert_eq!(errno(ask(&fd, request, "none0")), libc::ENODEV);
        assert_eq!(errno(ask(&fd, request, "")), libc::ENODEV);
    }
    let mut none = ifreq("", &999u32.to_ne_bytes());
    assert_eq!(errno(ioctl(fd.0, libc::SIOCGIFNAME, &mut none)), libc::ENODEV);
    assert_eq!(errno(ioctl(fd.0, libc::SIOCGIFNAME, &mut [0; 39])), libc::EINVAL);
}

/// Packet sockets leave what is about IPv4 to IPv4.
pub(crate) fn packet_sockets(pair: &Pair) {
    let (_, name, _) = device(pair);
    let fd = pair.open(&pair.a, libc::AF_PACKET, libc::SOCK_DGRAM, 0).unwrap();
    set(&fd, libc::SIOCSIFADDR, &name, [192, 168, 3, 4]).unwrap();
    set(&fd, libc::SIOCSIFNETMASK, &name, [255, 255, 255, 240]).unwrap();
    set(&fd, libc::SIOCSIFBRDADDR, &name, [192, 168, 3, 14]).unwrap();
    let told = addresses_of(&fd, &name).unwrap();
    assert_eq!(told, [[192, 168, 3, 4], [255, 255, 255, 240], [192, 168, 3, 14]]);
    assert_eq!(ask(&fd, libc::SIOCGIFDSTADDR, &name).unwrap()[4..8], [192, 168, 3, 4]);
    // Protocol flags, which nobody has; IPv4 knows the numbers at least.
    for request in [0x8934, 0x8935] {
        assert_eq!(errno(ask(&fd, request, &name)), libc::ENOTTY);
    }
}
