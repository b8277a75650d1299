//! Socket calls in any order, with any argument.

use std::io::{IoSlice, IoSliceMut};

use ioth_core::{Domain, MacAddr, MsgFlags, RecvMsg, SendMsg, Shutdown, SockAddr, SocketType};
use ioth_smoltcp::engine::addr::AddrAttrs;
use ioth_smoltcp::engine::bpf::INSTRUCTION_SIZE;
use ioth_smoltcp::engine::{Engine, Instant, SocketId};
use ioth_vde::{Batch, Properties};

use super::Input;

const SOL_SOCKET: i32 = 1;
const SO_GET_FILTER: i32 = 26;
const ETH_P_ALL: u16 = 3;

/// A program that calls one node with what its bytes say, over loopback and a wire on which nobody answers.
pub fn calls(data: &[u8]) {
    let mut input = Input(data);
    let mut engine = Engine::new([7; 32]);
    let properties = Properties { mtu: 1500, gso_max: 0, trusted: false };
    let eth =
        engine.add_interface("vde0", MacAddr([2, 0, 0, 0, 0, 1]), properties).expect("the first interface");
    for ifindex in [1, eth] {
        engine.tables_mut().set_up(ifindex, true).expect("it is there");
    }
    let _tap = engine
        .socket(Domain::PACKET, SocketType::RAW, i32::from(ETH_P_ALL.to_be()))
        .expect("a socket that sees everything");
    for addr in ["10.0.0.1/24", "fd00::1/64"] {
        let cidr = addr.parse().expect("an address");
        engine.tables_mut().add_addr(eth, cidr, AddrAttrs::default()).expect("the first of its family");
    }
    let mut micros = 0u64;
    let mut sockets: Vec<SocketId> = Vec::new();
    for _ in 0..500 {
        if input.is_empty() {
            break;
        }
        let (call, which) = (input.byte(), usize::from(input.byte()));
        if call % 16 == 0 || sockets.is_empty() {
            if let Ok(id) = open(&mut engine, &mut input) {
                sockets.push(id);
            }
            continue;
        }
        let at = which % sockets.len();
        let id = sockets[at];
        match call % 16 {
            1 => {
                let _ = engine.bind(id, &address(&mut input));
            }
            2 => {
                let _ = engine.connect(id, &address(&mut input));
            }
            3 => {
                let _ = engine.listen(id, input.i32());
            }
            4 => sockets.extend(engine.accept(id).map(|(child, _)| child)),
            5 | 6 => {
                let addr = (call & 16 != 0).then(|| address(&mut input));
                let len = usize::from(input.u16() % 4096);
                let data = [IoSlice::new(input.take(len))];
                let control = input.take(usize::from(call >> 5));
                let _ = engine.send(
                    id,
                    &SendMsg { data: &data, addr: addr.as_ref(), control },
                    MsgFlags::empty(),
                );
            }
            7 | 8 => {
                let flags = MsgFlags::from_bits_retain(input.i32());
                let (mut buffer, mut control) = ([0; 1000], [0; 100]);
                let (len, room) = (usize::from(input.u16()).min(1000), usize::from(input.byte()).min(100));
                let mut data = [IoSliceMut::new(&mut buffer[..len])];
                let mut message = RecvMsg { control: &mut control[..room], ..RecvMsg::new(&mut data) };
                let _ = engine.recv(id, &mut message, flags);
            }
            9 | 10 => {
                let (level, name) = (i32::from(input.u16()), i32::from(input.byte()));
                let len = usize::from(input.byte() % 32);
                let _ = engine.set_option(id, level, name, input.take(len));
            }
            11 => {
                let mut value = [0; 300];
                let (level, name, len) =
                    (i32::from(input.u16()), i32::from(input.byte()), usize::from(input.byte()));
                if let Ok(written) = engine.option(id, level, name, &mut value[..len]) {
                    // A filter's length is told where there is no room for an instruction.
                    let told = (level, name) == (SOL_SOCKET, SO_GET_FILTER) && len < INSTRUCTION_SIZE;
                    assert!(told || written <= len, "{written} bytes written to a buffer of {len}");
                }
            }
            12 => {
                let mut argument = [0; 64];
                let len = usize::from(input.byte() % 65);
                let given = input.take(len);
                argument[..given.len()].copy_from_slice(given);
                let _ = engine.ioctl(id, u64::from(input.u16()), &mut argument[..len]);
            }
            13 => {
                let how = Shutdown::from_raw(i32::from(input.byte() % 3)).expect("one of three");
                let _ = engine.shutdown(id, how);
            }
            14 => {
                engine.close(id);
                sockets.swap_remove(at);
            }
            _ => micros += 1 << (which % 32),
        }
        let _ = (engine.local_addr(id), engine.peer_addr(id), engine.events(id));
        engine.set_now(Instant::from_micros(micros as i64));
        engine.poll();
        engine.take_egress(eth, &mut Batch::new());
        engine.resume();
        engine.take_changed(&mut Vec::new());
    }
}

fn open(engine: &mut Engine, input: &mut Input<'_>) -> ioth_core::Result<SocketId> {
    let what = input.byte();
    // Packet sockets have their protocol in network byte order.
    if what >> 4 == 0xf {
        let kind = if what & 1 == 0 { SocketType::RAW } else { SocketType::DGRAM };
        return engine.socket(Domain::PACKET, kind, i32::from(input.u16()));
    }
    let domain = match what % 4 {
        0 => Domain::INET,
        1 => Domain::INET6,
        2 => Domain::NETLINK,
        _ => Domain(i32::from(what >> 4)),
    };
    engine.socket(domain, SocketType(i32::from(what >> 2) & 3), i32::from(input.byte()))
}

/// One of the node's addresses, of the wire's or of anybody's; small ports, so that they meet.
fn address(input: &mut Input<'_>) -> SockAddr {
    let (what, port) = (input.byte(), u16::from(input.byte() % 4));
    let ip: std::net::IpAddr = match what % 10 {
        0 => [127, 0, 0, 1].into(),
        1 => [0; 16].into(),
        2 => [10, 0, 0, 1].into(),
        3 => [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
        4 => [10, 0, 0, 2].into(),
        5 => [0xfd00, 0, 0, 0, 0, 0, 0, 2].into(),
        6 => [0, 0, 0, 0, 0, 0, 0, 1u16].into(),
        7 => [0, 0, 0, 0].into(),
        _ => return SockAddr::from_raw(input.take(usize::from(what))).unwrap_or(SockAddr::Unspecified),
    };
    SockAddr::Ip((ip, port).into())
}
