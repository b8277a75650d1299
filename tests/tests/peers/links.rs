//! Each kind of link: a node of ours at one end, the kernel at the other, by Debian's plug or by its own device.

use std::io::Read;
use std::net::{self as std_net, IpAddr};
use std::os::fd::IntoRawFd;
use std::process::{Command, Stdio};

use ioth::Stack;
use ioth::net::{TcpListener, TcpStream, UdpSocket};

use crate::fixture::{
    FAMILIES, KERNEL4, KERNEL6, Kernel, NODE4, NODE6, PATIENCE, Switch, command, ip, rethrow, wait_until,
    with_kernel,
};
use crate::programs::{check, send};

/// Bytes of a stream: enough for many super-frames.
const LONG: usize = 5_000_000;

/// A node on a link that is opened in the kernel's namespace.
pub(crate) fn node(kernel: &Kernel, vnl: &str) -> Stack {
    let config = format!("stack=smoltcp,vnl=\"{vnl}\",ip={NODE4}/24,ip={NODE6}/64");
    kernel.run(|| Stack::new(&config)).unwrap_or_else(|error| panic!("{vnl}: {error}"))
}

/// The kernel pings the node, and streams go both ways, over either family.
pub(crate) fn they_talk(kernel: &Kernel, node: &Stack) {
    for (ours, theirs) in FAMILIES {
        // The first may be lost while the two find each other.
        they_find_each_other(kernel, ours);
        // Of a length that is not even, and of several pieces.
        for size in [56, 1473, 4001] {
            kernel.run(|| {
                command(
                    "ping",
                    &format!("-n -q -c 2 -i 0.01 -W 5 -s {size} {ours}"),
                    "apt-get install iputils-ping",
                );
            });
        }
        datagrams_go_both_ways(kernel, node, theirs);
        streams_go_both_ways(kernel, node, (ours, theirs), LONG);
    }
}

/// Until the kernel's ping has an answer.
pub(crate) fn they_find_each_other(kernel: &Kernel, ours: IpAddr) {
    wait_until("an answer to a ping", || {
        let ping = format!("-n -q -c 1 -W 1 {ours}");
        let run = kernel.run(|| {
            Command::new("ping").args(ping.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).status()
        });
        run.expect("ping (apt-get install iputils-ping)").success()
    });
}

/// A stream of `len` bytes each way.
pub(crate) fn streams_go_both_ways(
    kernel: &Kernel,
    node: &Stack,
    (ours, theirs): (IpAddr, IpAddr),
    len: usize,
) {
    let listener = TcpListener::bind_on(node, (ours, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let sender = kernel.spawn(move || {
        let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        send(&stream, len).unwrap();
    });
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    check(&stream, len).unwrap();
    sender.join().unwrap_or_else(rethrow);

    let listener = kernel.run(|| std_net::TcpListener::bind((theirs, 0)).unwrap());
    let addr = listener.local_addr().unwrap();
    let receiver = kernel.spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        check(&stream, len).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let stream = TcpStream::connect_on(node, addr).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    send(&stream, len).unwrap();
    drop(stream);
    receiver.join().unwrap_or_else(rethrow);
}

/// The kernel's program sends back what the node's sends, whole or in pieces.
fn datagrams_go_both_ways(kernel: &Kernel, node: &Stack, theirs: IpAddr) {
    const LENGTHS: [usize; 5] = [0, 1, 7, 1400, 4001];
    let there = kernel.run(|| std_net::UdpSocket::bind((theirs, 0)).unwrap());
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = there.local_addr().unwrap();
    let echo = kernel.spawn(move || {
        let mut buffer = [0; 5000];
        for _ in LENGTHS {
            let (len, from) = there.recv_from(&mut buffer).unwrap();
            there.send_to(&buffer[..len], from).unwrap();
        }
    });
    let any = if theirs.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let here = UdpSocket::bind_on(node, any).unwrap();
    here.set_read_timeout(Some(PATIENCE)).unwrap();
    for len in LENGTHS {
        let sent: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
        here.send_to(&sent, to).unwrap();
        let mut buffer = [0; 5000];
        let (len, from) = here.recv_from(&mut buffer).unwrap();
        assert!(buffer[..len] == sent && from == to);
    }
    echo.join().unwrap_or_else(rethrow);
}

/// The same over a link whose other end Debian's plug has.
fn with_upstreams(kernel: &Kernel, ours: &str, theirs: &str) {
    let node = node(kernel, ours);
    let _plug = kernel.run(|| Kernel::plug(theirs));
    they_talk(kernel, &node);
}

#[test]
fn tap() {
    with_kernel(|kernel| {
        let node = node(kernel, "tap://tap7");
        kernel.run(|| Kernel::address("tap7"));
        they_talk(kernel, &node);
    });
}

#[test]
fn tap_without_offload() {
    with_kernel(|kernel| {
        let node = node(kernel, "tap://tap7[gso=0/checksum]");
        kernel.run(|| Kernel::address("tap7"));
        they_talk(kernel, &node);
    });
}

#[test]
fn tap_that_was_there_before() {
    with_kernel(|kernel| {
        for (kind, mtu) in [("", 1500), (" multi_queue", 9000)] {
            kernel.run(|| {
                ip(&format!("tuntap add tap8 mode tap{kind}"));
                ip(&format!("link set tap8 mtu {mtu}"));
                Kernel::address("tap8");
            });
            let node = node(kernel, "tap://tap8");
            they_talk(kernel, &node);
            drop(node);
            kernel.run(|| ip("link del tap8"));
        }
    });
}

/// The kernel sends a flow by the queue from which it got frames of it: with several flows several queues carry much, both ways, in
/// super-frames whose checksums nobody computes.
#[test]
fn tap_with_several_queues() {
    const QUEUES: usize = 4;
    with_kernel(|kernel| {
        let error = kernel.run(|| {
            ip("tuntap add single mode tap");
            ioth_vde::open("tap://single[queues=2]").unwrap_err()
        });
        assert!(error.to_string().contains("mode tap multi_queue user NAME"), "{error}");
        kernel.run(|| ip("tuntap add tap8 mode tap multi_queue"));
        for options in ["", "/gso=0/checksum"] {
            let node = node(kernel, &format!("tap://tap8[queues={QUEUES}{options}]"));
            kernel.run(|| Kernel::address("tap8"));
            they_talk(kernel, &node);
            std::thread::scope(|scope| {
                for port in 7000..7000 + 2 * QUEUES as u16 {
                    let node = &node;
                    scope.spawn(move || {
                        let listener = TcpListener::bind_on(node, (NODE4, port)).unwrap();
                        let addr = listener.local_addr().unwrap();
                        let sender = kernel.spawn(move || {
                            let stream = std_net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
                            stream.set_write_timeout(Some(PATIENCE)).unwrap();
                            stream.set_read_timeout(Some(PATIENCE)).unwrap();
                            send(&stream, LONG).unwrap();
                            stream.shutdown(std_net::Shutdown::Write).unwrap();
                            check(&stream, LONG).unwrap();
                        });
                        let (stream, _) = listener.accept().unwrap();
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        stream.set_write_timeout(Some(PATIENCE)).unwrap();
                        check(&stream, LONG).unwrap();
                        send(&stream, LONG).unwrap();
                        drop(stream);
                        sender.join().unwrap_or_else(rethrow);
                    });
                }
            });
            let shown = kernel.run(|| command("tc", "-s qdisc show dev tap8", "apt-get install iproute2"));
            // " Sent 5260336 bytes 3573 pkt (dropped 0, overlimits 0 requeues 0)", first of all queues together.
            let sent = shown
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Sent ")?.split(' ').next()?.parse().ok());
            let busy = sent.skip(1).filter(|bytes: &usize| *bytes > LONG / 2).count();
            assert!(busy >= 2, "{busy} of {QUEUES} queues carried much:\n{shown}");
            drop(node);
            kernel.run(|| ip("addr flush dev tap8"));
        }
    });
}

#[test]
fn udp() {
    with_kernel(|kernel| {
        with_upstreams(
            kernel,
            "udp://127.0.0.1:6001->127.0.0.1:6002",
            "udp://127.0.0.1:6002->127.0.0.1:6001",
        );
    });
}

#[test]
fn cable() {
    with_kernel(|kernel| {
        let path = std::env::temp_dir().join(format!("ioth-cable-{}", std::process::id()));
        let path = path.display();
        with_upstreams(kernel, &format!("ptp://{path}[old]"), &format!("ptp://{path}"));
        // Their plug was killed, and left its socket.
        let _ = std::fs::remove_file(format!("{path}+"));
    });
}

#[test]
fn command_line() {
    with_kernel(|kernel| {
        let node = node(kernel, "cmd://vde_plug tap://tap0");
        kernel.run(|| {
            wait_until("tap0", || {
                std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("tap0:")
            });
            Kernel::address("tap0");
        });
        they_talk(kernel, &node);
    });
}

#[test]
fn a_rate_that_is_limited() {
    with_kernel(|kernel| {
        let node = node(kernel, "rate://{tap://tap7}/rate=1g/burst=256k");
        kernel.run(|| Kernel::address("tap7"));
        they_talk(kernel, &node);
    });
}

/// tcpdump reads what we write; the kernel need not have vlan devices.
#[test]
fn tags_as_tcpdump_reads_them() {
    let trace = std::env::temp_dir().join(format!("ioth-tags-{}", std::process::id()));
    let vnl = format!("vlan://4{{vlan://5/qinq{{pcap://{}{{null://}}}}}}", trace.display());
    let link = ioth_vde::open(&vnl).unwrap();
    link.send(&mut [ioth_vde::Frame::copy_of(&frame(2, 1))].into()).unwrap();
    drop(link);
    let text = command("tcpdump", &format!("-enr {}", trace.display()), "apt-get install tcpdump");
    let tags =
        "ethertype 802.1Q-QinQ (0x88a8), length 68: vlan 5, p 0, ethertype 802.1Q (0x8100), vlan 4, p 0,";
    assert!(text.contains(tags), "{text}");
    std::fs::remove_file(&trace).unwrap();
}

#[test]
fn macvtap() {
    with_kernel(|kernel| {
        kernel.run(|| {
            ip("link add v0 type veth peer name v1");
            ip("link add link v1 name mv0 address 02:00:00:00:00:07 type macvtap mode bridge");
            ip("link set v1 up");
            ip("link set mv0 up allmulticast on");
            Kernel::address("v0");
        });
        let number = kernel.run(|| nix::net::if_::if_nametoindex("mv0").unwrap());
        let device = format!("/dev/tap{number}");
        assert!(
            std::path::Path::new(&device).exists(),
            "{device}; needed: mknod {device} c with the numbers of /sys/class/net/mv0/tap{number}/dev"
        );
        for vnl in ["macvtap://mv0".to_owned(), format!("macvtap://{device}[gso=0/checksum]")] {
            let config = format!("stack=smoltcp,vnl={vnl},mac=02:00:00:00:00:07,ip={NODE4}/24,ip={NODE6}/64");
            let node = kernel.run(|| Stack::new(&config)).unwrap_or_else(|error| panic!("{vnl}: {error}"));
            they_talk(kernel, &node);
        }
        for (vnl, part) in [
            ("macvtap://v0", "opening /dev/tap"),
            ("macvtap://nothing", "type macvtap mode bridge"),
            ("macvtap:///dev/tapx", "should be /dev/tapN"),
            ("macvtap:///dev/tap99999", "looking for the interface of /dev/tap99999"),
        ] {
            let error = kernel.run(|| ioth_vde::open(vnl).unwrap_err());
            assert!(error.to_string().contains(part), "{error}");
        }
    });
}

#[test]
fn nested() {
    with_kernel(|kernel| {
        let trace = std::env::temp_dir().join(format!("ioth-trace-{}", std::process::id()));
        let vnl = format!("pcap://{}{{fault://{{tap://tap7}}/delay=1ms}}", trace.display());
        let node = node(kernel, &vnl);
        kernel.run(|| Kernel::address("tap7"));
        they_talk(kernel, &node);
        drop(node);
        let text = command("tcpdump", &format!("-nr {} icmp", trace.display()), "apt-get install tcpdump");
        assert!(text.contains(&format!("{KERNEL4} > {NODE4}: ICMP echo request")), "{text}");
        assert!(!KERNEL6.is_ipv4());
        std::fs::remove_file(&trace).unwrap();
    });
}

/// Three namespaces on one wire, with the addresses 10.77.0.1 to 3.
pub(crate) fn wired(test: impl FnOnce([&Kernel; 3])) {
    with_kernel(|one| {
        let switch = Switch::start();
        let (two, three) = (Kernel::alone(), Kernel::alone());
        let kernels = [one, &two, &three];
        let plugs = ["10.77.0.1/24", "10.77.0.2/24", "10.77.0.3/24"].into_iter().zip(kernels);
        let _plugs: Vec<_> = plugs.map(|(address, kernel)| kernel.wire(&switch, address)).collect();
        test(kernels);
    });
}

#[test]
fn vxvde() {
    wired(|[here, there, _]| {
        for (ours, theirs) in [
            ("vxvde:///if=wire/vni=7", "vxvde:///if=wire/vni=7"),
            ("vxvde://239.9.9.9/port=5000/if=wire/bind=10.77.0.1", "vxvde://239.9.9.9/port=5000"),
            ("vxvde:///v6/if=wire/grp=4660", "vxvde:///v6/if=wire/grp=4660"),
        ] {
            let node = node(here, ours);
            let _plug = there.run(|| Kernel::plug(theirs));
            they_talk(there, &node);
        }
    });
}

/// A frame between two numbered stations.
fn frame(to: u8, from: u8) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame
}

#[test]
fn who_leaves_a_group_says_so_and_is_forgotten() {
    const HEADER: [u8; 8] = [8, 0, 0, 0, 0, 0, 3, 0];
    wired(|[here, there, _]| {
        let bound = |address: &str| {
            let socket = std_net::UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (group, station) = there.run(|| {
            let group = bound("0.0.0.0:14789");
            group.join_multicast_v4(&"239.0.0.1".parse().unwrap(), &"10.77.0.2".parse().unwrap()).unwrap();
            (group, bound("10.77.0.2:0"))
        });
        let link = here.run(|| ioth_vde::open("vxvde:///if=wire/vni=3").unwrap());
        let seen = std::sync::Arc::new(Count::default());
        link.attach(seen.clone()).unwrap();
        let send = || link.send(&mut [ioth_vde::Frame::copy_of(&frame(2, 1))].into()).unwrap();
        let mut buffer = [0; 100];
        let mut receive = |socket: &std_net::UdpSocket| {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            (buffer[..len].to_vec(), from)
        };
        // Nobody knows where station 2 is.
        send();
        let (datagram, end) = receive(&group);
        assert_eq!(datagram, [&HEADER[..], &frame(2, 1)].concat());
        station.send_to(&[&HEADER[..], &frame(1, 2)].concat(), end).unwrap();
        wait_until("a frame of station 2", || seen.0.load(std::sync::atomic::Ordering::Relaxed) == 1);
        send();
        assert_eq!(receive(&station).0, [&HEADER[..], &frame(2, 1)].concat());
        // It leaves; a frame of another one tells that this was read.
        station.send_to(&HEADER, end).unwrap();
        station.send_to(&[&HEADER[..], &frame(1, 3)].concat(), end).unwrap();
        wait_until("a frame of station 3", || seen.0.load(std::sync::atomic::Ordering::Relaxed) == 2);
        send();
        assert_eq!(receive(&group).0, [&HEADER[..], &frame(2, 1)].concat());
        link.detach();
        assert_eq!(receive(&group), (HEADER.to_vec(), end));
    });
}

/// Counts frames.
#[derive(Debug, Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl ioth_vde::Receiver for Count {
    fn receive(&self, frames: &mut ioth_vde::Batch) {
        self.0.fetch_add(frames.drain(..).count(), std::sync::atomic::Ordering::Relaxed);
    }

    fn writable(&self) {}

    fn down(&self, _: ioth_vde::LinkError) {}
}

#[test]
fn vxlan_with_the_kernels_device() {
    wired(|[here, there, _]| {
        for (ours, device) in [
            ("vxlan://239.1.1.1/vni=42/if=wire", "id 42 group 239.1.1.1 dev wire dstport 4789"),
            ("vxlan://ff05::1:1/vni=16777215/if=wire", "id 16777215 group ff05::1:1 dev wire dstport 4789"),
            ("vxlan://10.77.0.2/port=8472", "id 1 remote 10.77.0.1 dev wire dstport 8472"),
        ] {
            let node = node(here, ours);
            there.run(|| {
                ip(&format!("link add vx0 type vxlan {device}"));
                Kernel::address("vx0");
            });
            they_talk(there, &node);
            drop(node);
            there.run(|| ip("link del vx0"));
        }
    });
}

#[test]
fn two_nodes_of_one_host_and_two_vxlan_devices() {
    wired(|[here, there, third]| {
        here.run(|| ip("addr add 10.77.0.11/24 dev wire"));
        let vnl = |bind: &str| format!("vxlan://239.1.1.1/vni=42/if=wire/bind={bind}");
        let one = node(here, &vnl("10.77.0.1"));
        let config = format!("stack=smoltcp,vnl={},ip=10.0.0.3/24", vnl("10.77.0.11"));
        let two = here.run(|| Stack::new(&config)).unwrap();
        // A third one without an address of its own would take the others' datagrams.
        let error = here.run(|| ioth_vde::open("vxlan://239.1.1.1/if=wire")).unwrap_err();
        assert!(error.to_string().contains("bind="), "{error}");
        for kernel in [there, third] {
            kernel.run(|| ip("link add vx0 type vxlan id 42 group 239.1.1.1 dev wire dstport 4789"));
        }
        there.run(|| Kernel::address("vx0"));
        third.run(|| {
            ip("addr add 10.0.0.4/24 dev vx0");
            ip("link set vx0 up");
        });
        they_talk(there, &one);
        for kernel in [there, third] {
            kernel.run(|| {
                for node in [NODE4.to_string(), "10.0.0.3".to_owned()] {
                    command(
                        "ping",
                        &format!("-n -q -c 3 -i 0.1 -W 5 {node}"),
                        "apt-get install iputils-ping",
                    );
                }
            });
        }
        // The two of ours, of one host, hear each other.
        let listener = TcpListener::bind_on(&two, ("10.0.0.3", 0)).unwrap();
        let stream = TcpStream::connect_on(&one, listener.local_addr().unwrap()).unwrap();
        let sender = std::thread::spawn(move || send(&stream, 100_000).unwrap());
        check(&listener.accept().unwrap().0, 100_000).unwrap();
        sender.join().unwrap_or_else(rethrow);
    });
}

#[test]
fn inherited_socket() {
    with_kernel(|kernel| {
        let (near, far) = nix::sys::socket::socketpair(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::SeqPacket,
            None,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let node = node(kernel, &format!("seqpacket://{}", near.into_raw_fd()));
        // The plug gets the other end as its standard input.
        let _plug = kernel.start(
            Command::new("vde_plug").args(["seqpacket://0", "tap://tap0"]).stdin(Stdio::from(far)),
            "apt-get install vdeplug",
        );
        kernel.run(|| {
            wait_until("tap0", || {
                std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("tap0:")
            });
            Kernel::address("tap0");
        });
        they_talk(kernel, &node);
    });
}

/// Says that the test runs again, without capabilities.
const POWERLESS: &str = "IOTH_TEST_POWERLESS";

#[test]
fn tap_without_privileges() {
    if std::env::var_os(POWERLESS).is_some() {
        // The interfaces have the kernel's addresses already; streams and datagrams of a process without any right.
        for (vnl, ours, theirs) in [
            ("tap://mine", NODE4, KERNEL4),
            ("tap://several[queues=3]", [10, 1, 0, 1].into(), [10, 1, 0, 2].into()),
        ] {
            let node = Stack::new(&format!("stack=smoltcp,vnl={vnl},ip={ours}/24")).unwrap();
            let listener = std_net::TcpListener::bind((theirs, 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            let there = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                check(&stream, LONG).unwrap();
                send(&stream, LONG).unwrap();
            });
            let stream = TcpStream::connect_on(&node, addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            send(&stream, LONG).unwrap();
            stream.shutdown(std_net::Shutdown::Write).unwrap();
            check(&stream, LONG).unwrap();
            there.join().unwrap_or_else(rethrow);
        }
        let error = ioth_vde::open("tap://new").unwrap_err();
        assert_eq!(error.errno(), ioth_core::Errno::EPERM);
        assert!(error.to_string().contains("ip tuntap add new mode tap user NAME"), "{error}");
        let error = ioth_vde::open("tap://lo").unwrap_err();
        assert!(error.to_string().contains("no TAP"), "{error}");
        return;
    }
    with_kernel(|kernel| {
        kernel.run(|| {
            ip("tuntap add mine mode tap user 0");
            Kernel::address("mine");
            ip("tuntap add several mode tap multi_queue user 0");
            ip("addr add 10.1.0.2/24 dev several");
            ip("link set several up");
        });
        let run = kernel.run(|| {
            Command::new("setpriv")
                .args(["--inh-caps=-all", "--bounding-set=-all", "--"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "links::tap_without_privileges", "--nocapture"])
                .env(POWERLESS, "1")
                .output()
                .unwrap_or_else(|error| panic!("setpriv: {error}; needed: apt-get install util-linux"))
        });
        let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && text.contains("1 passed"), "{text}");
    });
}
