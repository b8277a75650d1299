//! A kernel's stack of ours among the others: nodes in user space, kernels behind Debian's plugs, and its own kind.

use std::net::{IpAddr, Shutdown};
use std::process::{Command, Stdio};
use std::thread;

use ioth::Stack;
use ioth::net::{TcpListener, TcpStream, UdpSocket};

use crate::fixture::{
    KERNEL4, KERNEL6, NODE4, NODE6, PATIENCE, Switch, on_lan, rethrow, wait_until, with_kernel,
};
use crate::programs::{check, send};

const LONG: usize = 20_000_000;

fn node(stack: &str, vnl: &str, host: u8) -> Stack {
    let config = format!("stack={stack},vnl={vnl},ip=10.0.0.{host}/24,ip=fd00::{host}/64");
    Stack::new(&config).unwrap_or_else(|error| panic!("{config}: {error}"))
}

fn address(family: &str, host: u8) -> IpAddr {
    format!("{family}{host}").parse().unwrap()
}

/// A stream each way, and datagrams both ways, in whole and in pieces.
fn talk(from: &Stack, to: &Stack, to_addr: IpAddr) {
    let listener = TcpListener::bind_on(to, (to_addr, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let stream = TcpStream::connect_on(from, addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            send(&stream, LONG).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            check(&stream, LONG).unwrap();
        });
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        check(&stream, LONG).unwrap();
        send(&stream, LONG).unwrap();
        drop(stream);
        client.join().unwrap_or_else(rethrow);
    });
    let receiver = UdpSocket::bind_on(to, (to_addr, 0)).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let any: IpAddr = if to_addr.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let sender = UdpSocket::bind_on(from, (any, 0)).unwrap();
    sender.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 65_536];
    for len in [0, 1, 1400, 5000] {
        let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
        sender.send_to(&data, receiver.local_addr().unwrap()).unwrap();
        let (got, peer) = receiver.recv_from(&mut buffer).unwrap();
        assert!(buffer[..got] == data, "{len} bytes");
        receiver.send_to(&data, peer).unwrap();
        let (got, _) = sender.recv_from(&mut buffer).unwrap();
        assert!(buffer[..got] == data, "{len} bytes back");
    }
}

fn all_talk(vnl: &str) {
    let (one, two, user) = (node("vdestack", vnl, 11), node("vdestack", vnl, 12), node("smoltcp", vnl, 13));
    for family in ["10.0.0.", "fd00::"] {
        talk(&one, &two, address(family, 12));
        talk(&one, &user, address(family, 13));
        talk(&user, &two, address(family, 12));
    }
}

/// Super-frames and missing checksums cross from kernel to kernel, and to a stack in user space and back.
#[test]
fn on_a_lan_in_the_process() {
    with_kernel(|_| all_talk("switch://peers-vdestack"));
}

/// Where nobody takes them.
#[test]
fn on_a_lan_without_offload() {
    with_kernel(|_| all_talk("switch://peers-vdestack-plain[gso=0/checksum]"));
}

#[test]
fn on_a_lan_of_large_frames() {
    with_kernel(|_| all_talk("switch://peers-vdestack-large[mtu=9000]"));
}

#[test]
fn on_vde_switch() {
    on_lan(|lan| all_talk(&lan.switch.vnl()));
}

/// The kernel behind Debian's plug, and one in a namespace of vdens, ping it and are talked to.
#[test]
fn with_kernels_of_debians_plugs() {
    on_lan(|lan| {
        let vnl = lan.switch.vnl();
        let stack = Stack::new(&format!("stack=vdestack,vnl={vnl},ip={NODE4}/24,ip={NODE6}/64")).unwrap();
        for kernel in [KERNEL4, KERNEL6] {
            let listener = lan.kernel.run(|| std::net::TcpListener::bind((kernel, 0)).unwrap());
            let addr = listener.local_addr().unwrap();
            let receiver = lan.kernel.spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                check(&stream, LONG).unwrap();
            });
            let stream = TcpStream::connect_on(&stack, addr).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            send(&stream, LONG).unwrap();
            drop(stream);
            receiver.join().unwrap_or_else(rethrow);
        }
        let script = format!(
            "ip addr add 10.0.0.3/24 dev vde0; ip addr add fd00::3/64 dev vde0 nodad; ip link set vde0 up; \
             for i in 1 2 3 4 5; do ping -n -q -c 1 -W 2 {NODE4} && ping -n -q -c 1 -W 2 {NODE6} && exit 0; done; exit 1"
        );
        let run = Command::new("vdens").args([&vnl, "sh", "-c", &script]).stdin(Stdio::null()).output();
        let run = run.unwrap_or_else(|error| panic!("vdens: {error}; needed: apt-get install vdens"));
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    });
}

/// A switch that has gone is a cable that was pulled.
#[test]
fn the_switch_ends() {
    with_kernel(|_| {
        let switch = Switch::start();
        let stack = node("vdestack", &switch.vnl(), 11);
        let route = stack.route().unwrap();
        let index = route.link_index("vde0").unwrap();
        let running = || route.link(index).unwrap().flags.contains(ioth::core::netlink::LinkFlags::RUNNING);
        wait_until("carrier", running);
        switch.kill();
        wait_until("end of the carrier", || !running());
    });
}

/// A scheme that a program has registered is one of this kind of stack as well.
#[test]
fn on_a_network_of_the_programs_own() {
    ioth::vde::register(
        "floor",
        std::sync::Arc::new(|spec| spec.inner(&format!("switch://floor-{}", spec.rest))),
    )
    .unwrap();
    with_kernel(|_| all_talk("floor://2"));
}
