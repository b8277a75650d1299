//! Stacks on LANs within the process. They need user namespaces and /dev/net/tun.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ioth_core::netlink::{Address, Changes};
use ioth_core::{MsgFlags, RecvMsg, SendMsg};

use super::*;
use crate::calls;

/// A stack with interfaces of these addresses, each on the network beside it.
fn stack(plugs: &[(&str, &str)]) -> Arc<Vdestack> {
    let vnls = plugs.iter().map(|(vnl, _)| (*vnl).to_owned()).collect();
    let made = Vdestack::new(&StackSpec { vnls, ..StackSpec::default() }, &Schemes::builtin());
    let stack = Arc::new(made.unwrap_or_else(|error| panic!("{error}")));
    let (route, changes) = (Route::new(&*stack).unwrap(), Changes::new(&*stack).unwrap());
    for (number, (_, cidr)) in plugs.iter().enumerate() {
        let index = route.link_index(&format!("vde{number}")).unwrap();
        route.set_link_up(index, true).unwrap();
        route.add_address(index, cidr.parse().unwrap()).unwrap();
    }
    // The kernel checks IPv6 addresses for duplicates in a thread of its own, also where it is told not to look for any.
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_checked = |address: &Address| address.flags & libc::IFA_F_TENTATIVE == 0;
    while !route.addresses().unwrap().iter().all(is_checked) {
        assert!(changes.wait(deadline).unwrap(), "an address stays tentative");
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

/// Sockets of a kind that is asked for again and again are made ahead; each is what was asked for, and made for it alone.
#[test]
fn sockets_that_are_made_ahead() {
    let stack = stack(&[]);
    let kind = |socket: &dyn Socket| {
        let mut value = [[0; 4]; 3];
        for (name, value) in [libc::SO_DOMAIN, libc::SO_TYPE, libc::SO_PROTOCOL].into_iter().zip(&mut value) {
            assert_eq!(socket.option(libc::SOL_SOCKET, name, value), Ok(4));
        }
        value.map(i32::from_ne_bytes)
    };
    let streams = [(Domain::INET, SocketType::STREAM, libc::IPPROTO_TCP); 5];
    let datagrams = [(Domain::INET6, SocketType::DGRAM, libc::IPPROTO_UDP); 3];
    let mut sockets = Vec::new();
    for (domain, type_, protocol) in streams.into_iter().chain(datagrams).chain(streams).chain(datagrams) {
        let socket = stack.socket(domain, type_, protocol).unwrap();
        assert_eq!(kind(&*socket), [domain.0, type_.0, protocol]);
        sockets.push(socket);
        // What is refused is refused each time.
        for _ in 0..sockets.len() % 4 {
            let wrong = stack.socket(Domain::INET, SocketType::STREAM, libc::IPPROTO_UDP);
            assert_eq!(wrong.err(), Some(Errno::EPROTONOSUPPORT));
        }
    }
    // A raw socket hears what comes from the moment that it is made.
    let raws = [(); 4].map(|()| {
        let raw = stack.socket(Domain::INET, SocketType::RAW, libc::IPPROTO_ICMP).unwrap();
        assert_eq!(receive(&*raw, MsgFlags::DONTWAIT), Err(Errno::EAGAIN));
        let echo = [8, 0, 0xF7, 0xFF, 0, 0, 0, 0];
        let addr: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let addr = addr.into();
        let data = [IoSlice::new(&echo)];
        raw.send(&SendMsg { addr: Some(&addr), ..SendMsg::new(&data) }, MsgFlags::empty()).unwrap();
        assert_eq!(receive(&*raw, MsgFlags::empty()), Ok(28));
        raw
    });
    sockets.extend(raws);
    let mut cookies: Vec<u64> = sockets
        .iter()
        .map(|socket| {
            let mut cookie = [0; 8];
            socket.option(libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie).unwrap();
            u64::from_ne_bytes(cookie)
        })
        .collect();
    cookies.sort();
    cookies.dedup();
    assert_eq!(cookies.len(), sockets.len());
}

/// Two stacks on a link of descriptors, at which a thread that waits for a socket waits as well.
fn cable(name: &str) -> (Arc<Vdestack>, Arc<Vdestack>) {
    let path = std::env::temp_dir().join(format!("ioth-{name}-{}", std::process::id()));
    let vnl = format!("ptp://{}", path.display());
    (stack(&[(&vnl, "10.1.0.1/24")]), stack(&[(&vnl, "10.1.0.2/24")]))
}

fn option(socket: &dyn Socket, level: i32, name: i32, value: &[u8]) {
    socket.set_option(level, name, value).unwrap();
}

fn receive(socket: &dyn Socket, flags: MsgFlags) -> Result<usize> {
    let mut buffer = [0; 64];
    socket.recv(&mut RecvMsg::new(&mut [IoSliceMut::new(&mut buffer)]), flags)
}

fn send(socket: &dyn Socket, data: &[u8]) {
    assert_eq!(socket.send(&SendMsg::new(&[IoSlice::new(data)]), MsgFlags::empty()), Ok(data.len()));
}

fn listen(stack: &Vdestack) -> Arc<dyn Socket> {
    let listener = stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
    listener.bind(&"10.1.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(8).unwrap();
    listener
}

/// Both ends wait for each other again and again, and for connections.
#[test]
fn threads_that_wait_bring_what_they_wait_for() {
    let (here, there) = cable("turns");
    let listener = listen(&there);
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..20 {
            let (stream, _) = listener.accept().unwrap();
            while receive(&*stream, MsgFlags::empty()).unwrap() > 0 {
                send(&*stream, b"pong");
            }
        }
    });
    for _ in 0..20 {
        let stream = here.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
        stream.connect(&addr).unwrap();
        for _ in 0..20 {
            send(&*stream, b"ping");
            assert_eq!(receive(&*stream, MsgFlags::empty()), Ok(4));
        }
        stream.shutdown(ioth_core::Shutdown::Write).unwrap();
        assert_eq!(receive(&*stream, MsgFlags::empty()), Ok(0));
    }
    server.join().unwrap();
}

/// Whatever ends the wait, or forbids it, is the kernel's.
#[test]
fn a_wait_at_the_link_ends_as_the_call_would() {
    let (_here, there) = cable("ends");
    let socket = udp(&there, "10.1.0.2:0");
    assert_eq!(receive(&*socket, MsgFlags::DONTWAIT), Err(Errno::EAGAIN));
    socket.set_nonblocking(true).unwrap();
    assert_eq!(receive(&*socket, MsgFlags::empty()), Err(Errno::EAGAIN));
    socket.set_nonblocking(false).unwrap();
    let timeout: Vec<u8> = [0i64, 30_000].iter().flat_map(|part| part.to_ne_bytes()).collect();
    option(&*socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout);
    assert_eq!(receive(&*socket, MsgFlags::empty()), Err(Errno::EAGAIN));

    let listener = listen(&there);
    // Such a call waits for nothing.
    assert_eq!(receive(&*listener, MsgFlags::empty()), Err(Errno::ENOTCONN));
    option(&*listener, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout);
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    let stream = there.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
    assert_eq!(stream.accept().err(), Some(Errno::EINVAL));
    assert_eq!(receive(&*stream, MsgFlags::empty()), Err(Errno::ENOTCONN));
}

/// A connection is begun without waiting, and waited for at the link: what comes of it is the kernel's word all the same.
#[test]
fn connections_end_as_the_call_would() {
    let (here, there) = cable("connects");
    let client = || here.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
    let listener = listen(&there);
    let addr = listener.local_addr().unwrap();
    let nobody = "10.1.0.2:9".parse::<SocketAddr>().unwrap().into();

    let stream = client();
    assert_eq!(stream.connect(&nobody), Err(Errno::ECONNREFUSED));
    // It may try again, and blocks still.
    assert_eq!(stream.connect(&addr), Ok(()));
    let fd = stream.release_fd().unwrap();
    assert_eq!(calls::nonblocking(fd.as_fd()), Ok(false));
    assert_eq!(stream.connect(&addr), Err(Errno::EISCONN));

    let stream = client();
    assert_eq!(stream.connect(&"10.9.0.1:9".parse::<SocketAddr>().unwrap().into()), Err(Errno::ENETUNREACH));
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.connect(&addr), Err(Errno::EINPROGRESS));
    let stream = client();
    // Nobody has that address, which takes seconds to find out.
    let timeout: Vec<u8> = [0i64, 30_000].iter().flat_map(|part| part.to_ne_bytes()).collect();
    option(&*stream, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &timeout);
    let silent = "10.1.0.77:9".parse::<SocketAddr>().unwrap().into();
    assert_eq!(stream.connect(&silent), Err(Errno::EINPROGRESS));
    assert_eq!(client().connect(&silent), Err(Errno::EHOSTUNREACH));

    // Several threads, of which one is at the link.
    let threads = [(); 4].map(|()| {
        let stream = client();
        std::thread::spawn(move || stream.connect(&addr))
    });
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [Ok(()); 4]);
}

/// Neither a frame of the link nor a call of the waiting thread's brings it.
#[test]
fn what_comes_another_way_ends_a_wait_at_the_link() {
    let (_here, there) = cable("within");
    let socket = udp(&there, "10.1.0.2:0");
    let addr = socket.local_addr().unwrap();
    let sender = udp(&there, "10.1.0.2:0");
    let waiter = std::thread::spawn(move || receive(&*socket, MsgFlags::empty()));
    sender.connect(&addr).unwrap();
    send(&*sender, b"ciao");
    assert_eq!(waiter.join().unwrap(), Ok(4));

    let listener = listen(&there);
    let client = there.socket(Domain::INET, SocketType::STREAM, 0).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let other = server.clone();
    let waiter = std::thread::spawn(move || receive(&*other, MsgFlags::empty()));
    server.shutdown(ioth_core::Shutdown::Read).unwrap();
    assert_eq!(waiter.join().unwrap(), Ok(0));
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
