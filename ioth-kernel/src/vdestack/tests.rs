//! Stacks on LANs within the process. They need user namespaces and /dev/net/tun.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use ioth_core::{MsgFlags, RecvMsg, SendMsg};

use super::*;

/// A stack with interfaces of these addresses, each on the network beside it.
fn stack(plugs: &[(&str, &str)]) -> Arc<Vdestack> {
    let vnls = plugs.iter().map(|(vnl, _)| (*vnl).to_owned()).collect();
    let made = Vdestack::new(&StackSpec { vnls, ..StackSpec::default() }, &Schemes::builtin());
    let stack = Arc::new(made.unwrap_or_else(|error| panic!("{error}")));
    let route = Route::new(&*stack).unwrap();
    for (number, (_, cidr)) in plugs.iter().enumerate() {
        let index = route.link_index(&format!("vde{number}")).unwrap();
        route.set_link_up(index, true).unwrap();
        route.add_address(index, cidr.parse().unwrap()).unwrap();
    }
    stack
}

fn udp(stack: &Vdestack, addr: &str) -> Arc<dyn Socket> {
    let addr: SocketAddr = addr.parse().unwrap();
    let domain = if addr.is_ipv4() { Domain::INET } else { Domain::INET6 };
    let socket = stack.socket(domain, SocketType::DGRAM, 0).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket
}

fn pass(from: &dyn Socket, to: &dyn Socket) {
    let addr = to.local_addr().unwrap();
    let data = [IoSlice::new(b"ciao")];
    from.send(&SendMsg { addr: Some(&addr), ..SendMsg::new(&data) }, MsgFlags::empty()).unwrap();
    let mut buffer = [0; 8];
    let mut data = [IoSliceMut::new(&mut buffer)];
    let mut message = RecvMsg::new(&mut data);
    assert_eq!(to.recv(&mut message, MsgFlags::empty()), Ok(4));
    assert_eq!(message.addr, from.local_addr().ok());
}

#[test]
fn several_interfaces() {
    let both = stack(&[("switch://vdestack-a", "10.1.0.1/24"), ("switch://vdestack-b", "fd02::1/64")]);
    let a = stack(&[("switch://vdestack-a", "10.1.0.2/24")]);
    let b = stack(&[("switch://vdestack-b", "fd02::2/64")]);
    pass(&*udp(&both, "10.1.0.1:0"), &*udp(&a, "10.1.0.2:0"));
    pass(&*udp(&b, "[fd02::2]:0"), &*udp(&both, "[fd02::1]:0"));
    pass(&*udp(&a, "127.0.0.1:0"), &*udp(&a, "127.0.0.1:0"));
}

#[test]
fn names_and_mtus() {
    let vnls = ["eth7:null://", "switch://vdestack-mtu[mtu=9000]", "null://"].map(str::to_owned).to_vec();
    let stack = Vdestack::new(&StackSpec { vnls, ..StackSpec::default() }, &Schemes::builtin()).unwrap();
    let route = Route::new(&stack).unwrap();
    let mut links: Vec<_> =
        route.links().unwrap().iter().map(|link| (link.name.clone(), link.up())).collect();
    links.sort();
    let wanted = [("eth7", false), ("lo", true), ("vde0", false), ("vde1", false)];
    assert_eq!(links, wanted.map(|(name, up)| (name.to_owned(), up)));
    assert_eq!(route.link(route.link_index("vde0").unwrap()).unwrap().mtu, 9000);
}

#[test]
fn what_cannot_be_made() {
    let refused = |options: &str, vnls: &[&str]| {
        let vnls = vnls.iter().map(|vnl| (*vnl).to_owned()).collect();
        let spec = StackSpec { options: options.to_owned(), vnls };
        Vdestack::new(&spec, &Schemes::builtin()).unwrap_err()
    };
    assert_eq!(
        refused("fast", &[]).to_string(),
        "stack: vdestack takes no options, not \"fast\": EINVAL: Invalid argument"
    );
    assert_eq!(refused("", &["x:null://", "x:null://"]).errno(), Errno::EBUSY);
    assert!(refused("", &["lo:null://"]).to_string().contains("making the interface lo"));
    assert!(matches!(refused("", &["vd://x"]), StackError::Link { .. }));
}

#[test]
fn the_end() {
    let stack = stack(&[("null://", "10.1.0.1/24")]);
    let socket = udp(&stack, "10.1.0.1:0");
    assert_eq!(stack.delete(), Err(Errno::EBUSY));
    socket.close().unwrap();
    assert_eq!(stack.delete(), Ok(()));
    assert_eq!(stack.delete(), Ok(()));
    assert_eq!(stack.socket(Domain::INET, SocketType::DGRAM, 0).err(), Some(Errno::ENODEV));
    assert!(stack.network().unwrap().interfaces[0].is_drained());
}

#[test]
fn families() {
    let stack = stack(&[]);
    for (domain, kind, protocol) in [
        (Domain::INET, SocketType::STREAM, 0),
        (Domain::INET6, SocketType::RAW, libc::IPPROTO_ICMPV6),
        (Domain::INET, SocketType::DGRAM, libc::IPPROTO_ICMP),
        (Domain::PACKET, SocketType::RAW, 0),
        (Domain::NETLINK, SocketType::RAW, libc::NETLINK_ROUTE),
    ] {
        assert!(stack.socket(domain, kind, protocol).is_ok(), "{domain:?} {kind:?}");
    }
    assert_eq!(stack.socket(Domain(libc::AF_UNIX), SocketType::STREAM, 0).err(), Some(Errno::EAFNOSUPPORT));
    let wrong = stack.socket(Domain::INET, SocketType::STREAM, libc::IPPROTO_UDP);
    assert_eq!(wrong.err(), Some(Errno::EPROTONOSUPPORT));
    let socket = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap().release_fd().unwrap();
    let flags = nix::fcntl::fcntl(socket.as_fd(), nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, libc::FD_CLOEXEC);
}

/// A datagram to a neighbour that is not known yet, and a stream that nobody has read, arrive from a stack that ends at once.
#[test]
fn what_was_sent_leaves_before_the_end() {
    let there = stack(&[("switch://vdestack-end", "10.1.0.2/24")]);
    let receiver = udp(&there, "10.1.0.2:0");
    let listener = there.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
    listener.bind(&"10.1.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(1).unwrap();

    let here = stack(&[("switch://vdestack-end", "10.1.0.1/24")]);
    let sender = udp(&here, "10.1.0.1:0");
    let addr = receiver.local_addr().unwrap();
    let data = [IoSlice::new(b"ciao")];
    sender.send(&SendMsg { addr: Some(&addr), ..SendMsg::new(&data) }, MsgFlags::empty()).unwrap();
    drop(sender);
    drop(here);
    let mut buffer = [0; 8];
    assert_eq!(
        receiver.recv(&mut RecvMsg::new(&mut [IoSliceMut::new(&mut buffer)]), MsgFlags::empty()),
        Ok(4)
    );

    let here = stack(&[("switch://vdestack-end", "10.1.0.1/24")]);
    let client = here.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    let content = vec![7; 100_000];
    assert_eq!(client.send(&SendMsg::new(&[IoSlice::new(&content)]), MsgFlags::empty()), Ok(content.len()));
    drop(client);
    drop(here);
    let (server, _) = listener.accept().unwrap();
    let mut rest = content.len();
    let mut buffer = vec![0; rest];
    while rest > 0 {
        let mut data = [IoSliceMut::new(&mut buffer)];
        let len = server.recv(&mut RecvMsg::new(&mut data), MsgFlags::empty()).unwrap();
        assert_ne!(len, 0, "{rest} bytes are missing");
        rest -= len;
    }
}
