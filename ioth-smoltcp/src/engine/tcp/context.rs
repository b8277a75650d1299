//! smoltcp's contexts: one `Interface` for each packet size in use, and one for each new connection.
//!
//! A context knows nothing of interfaces, addresses or routes: it takes any address (`any_ip`), and what it emits
//! is a whole IP packet that [`Net`](crate::engine::net::Net) then routes. The segment size that smoltcp uses follows
//! the context's MTU, so every packet size has its own.

use std::net::IpAddr;

use ioth_vde::Frame;
use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpProtocol, Ipv4Address, Ipv6Address, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::engine::wire::{self, IPV4_HEADER, IpAttrs};
use crate::sys::TcpCell;

/// Packet sizes that have a context at the same time; the least recently made goes first.
const MAX_CONTEXTS: usize = 16;
/// smoltcp computes segment sizes by subtraction: below this it would underflow.
const MIN_MTU: usize = 128;
/// The congestion window that smoltcp begins with, in bytes, and the smallest segment size that it takes from a peer.
const SMOLTCP_WINDOW: usize = 2048;
const MIN_SEGMENT: usize = 48;
/// The ports of the connection that is played, its own and the peer's.
const REHEARSAL: [u16; 2] = [1, 2];

/// The contexts in use, made when first asked for.
#[derive(Default)]
pub(crate) struct Contexts {
    by_mtu: Vec<(usize, Interface)>,
}

impl Contexts {
    /// The context for IP packets of up to `mtu` bytes.
    pub(crate) fn get(&mut self, mtu: usize, now: Instant) -> &mut Interface {
        let mtu = mtu.clamp(MIN_MTU, usize::from(u16::MAX));
        if let Some(at) = self.by_mtu.iter().position(|(size, _)| *size == mtu) {
            return &mut self.by_mtu[at].1;
        }
        if self.by_mtu.len() >= MAX_CONTEXTS {
            self.by_mtu.remove(0);
        }
        self.by_mtu.push((mtu, interface(mtu, now, 0)));
        &mut self.by_mtu.last_mut().expect("pushed just now").1
    }

    /// Makes a fresh socket's congestion window begin with `window` bytes.
    ///
    /// smoltcp begins with 2048 and has no setting for it, but leaves its congestion control as it is from one connection
    /// of a socket to the next. So a first connection is played to it: with nobody, on a wire that is not there, on
    /// which one segment of just the missing size is acknowledged.
    pub(crate) fn teach_initial_window(&mut self, cell: &mut TcpCell, now: Instant, window: usize) {
        let missing = window.saturating_sub(SMOLTCP_WINDOW).min(usize::from(u16::MAX));
        if missing < MIN_SEGMENT {
            return;
        }
        let context = self.get(MIN_MTU, now);
        let [local, remote] = REHEARSAL.map(|port| IpEndpoint::new(IpAddress::v4(127, 0, 0, 1), port));
        if cell.socket_mut(|socket| socket.connect(context.context(), remote, local)).is_err() {
            return;
        }
        let mut syn = Vec::new();
        cell.with(|set, _| context.poll_egress(now, &mut Wire { mtu: MIN_MTU, rx: None, tx: &mut syn }, set));
        let Some(syn) = syn.first() else { return };
        let start = TcpPacket::new_unchecked(&syn[IPV4_HEADER..]).seq_number();
        let mut replies = Vec::new();
        let mut play = |cell: &mut TcpCell, control, acknowledged: usize, mss| {
            let packet = rehearsal_packet(start + acknowledged, control, mss);
            let mut wire = Wire { mtu: MIN_MTU, rx: Some(&packet), tx: &mut replies };
            cell.with(|set, _| context.poll_ingress_single(now, &mut wire, set));
        };
        play(cell, TcpControl::Syn, 1, Some(missing as u16));
        let filled = cell.socket_mut(|socket| {
            let mut left = missing;
            while left > 0 {
                // The bytes are whatever is in the buffer: they are never read.
                match socket.send(|room| (room.len().min(left), room.len().min(left))) {
                    Ok(0) | Err(_) => return false,
                    Ok(n) => left -= n,
                }
            }
            true
        });
        if filled {
            play(cell, TcpControl::None, 1 + missing, None);
        }
        play(cell, TcpControl::Rst, 1 + missing, None);
    }
}

/// A segment of the connection that only serves to open the congestion window.
fn rehearsal_packet(ack: TcpSeqNumber, control: TcpControl, mss: Option<u16>) -> Frame {
    let syn = control == TcpControl::Syn;
    let tcp = TcpRepr {
        src_port: REHEARSAL[1],
        dst_port: REHEARSAL[0],
        control,
        seq_number: TcpSeqNumber(0) + usize::from(!syn),
        ack_number: Some(ack),
        window_len: u16::MAX,
        window_scale: None,
        max_seg_size: mss,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut packet = Frame::new(IPV4_HEADER + tcp.header_len());
    let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    wire::emit_ip(&mut packet, loopback, loopback, IpAttrs::new(IpProtocol::Tcp, 64));
    let mut segment = TcpPacket::new_unchecked(&mut packet[IPV4_HEADER..]);
    let address = IpAddress::v4(127, 0, 0, 1);
    tcp.emit(&mut segment, &address, &address, &ChecksumCapabilities::ignored());
    packet
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_mtu.iter().map(|(mtu, _)| mtu)).finish()
    }
}

/// A throw-away context in which the next connection begins with this sequence number.
///
/// smoltcp draws initial sequence numbers from a small generator that can be predicted from its output
/// (RFC 6528 asks for better), and takes no number from outside. The generator is an invertible step
/// on 64 bits, so its seed is computed from the number that it shall give.
pub(crate) fn with_sequence(mtu: usize, now: Instant, sequence: u32) -> Interface {
    interface(mtu.clamp(MIN_MTU, usize::from(u16::MAX)), now, seed_for(sequence))
}

const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;

fn output(state: u64) -> u32 {
    (state >> (29 - (state >> 61))) as u32
}

/// The seed with which smoltcp's generator, after the number it draws for itself, gives `sequence`.
fn seed_for(sequence: u32) -> u64 {
    const INVERSE: u64 = inverse(MULTIPLIER);
    let back = |state: u64| state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE);
    // The lower bits are free: smoltcp draws again while its own first number is 0.
    (0..)
        .map(|low| back(u64::from(sequence) << 29 | low))
        .find(|&first| {
            let number = output(first);
            (number ^ number >> 16) as u16 != 0
        })
        .map(back)
        .expect("one of 2^29 candidates")
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut i = 0;
    while i < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        i += 1;
    }
    x
}

fn interface(mtu: usize, now: Instant, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut nothing = Vec::new();
    let mut interface = Interface::new(config, &mut Wire { mtu, rx: None, tx: &mut nothing }, now);
    interface.set_any_ip(true);
    // Every destination counts as on this network, so smoltcp never looks for a route.
    interface.update_ip_addrs(|addrs| {
        let _ = addrs.push(IpCidr::new(Ipv4Address::UNSPECIFIED.into(), 0));
        let _ = addrs.push(IpCidr::new(Ipv6Address::UNSPECIFIED.into(), 0));
    });
    interface
}

/// The device that smoltcp sees for the length of one call: a packet in, any number out.
pub(crate) struct Wire<'a> {
    pub(crate) mtu: usize,
    pub(crate) rx: Option<&'a [u8]>,
    pub(crate) tx: &'a mut Vec<Frame>,
}

impl Device for Wire<'_> {
    type RxToken<'a>
        = Rx<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Tx<'a>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let packet = self.rx.take()?;
        Some((Rx(packet), Tx(self.tx)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        Some(Tx(self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Incoming packets were verified before, outgoing ones are finished by `Net`.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

/// See [`Wire`].
pub(crate) struct Rx<'a>(&'a [u8]);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// See [`Wire`].
pub(crate) struct Tx<'a>(&'a mut Vec<Frame>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = Frame::new(len);
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(state: u64) -> u64 {
        state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)
    }

    proptest! {
        #[test]
        fn the_generator_gives_what_it_was_seeded_for(sequence: u32) {
            let first = step(seed_for(sequence));
            prop_assert_ne!((output(first) ^ output(first) >> 16) as u16, 0);
            prop_assert_eq!(output(step(first)), sequence);
        }
    }

    #[test]
    fn smoltcp_draws_the_number() {
        for sequence in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x1234_5678] {
            let now = Instant::from_millis(1);
            let mut interface = with_sequence(1500, now, sequence);
            let mut cell = TcpCell::new(crate::sys::Size::Near, 1 << 20).unwrap();
            cell.socket_mut(|socket| {
                let remote = (IpAddress::v4(10, 0, 0, 2), 80);
                socket.connect(interface.context(), remote, (IpAddress::v4(10, 0, 0, 1), 4000)).unwrap();
            });
            let mut out = Vec::new();
            cell.with(|set, _| {
                interface.poll_egress(now, &mut Wire { mtu: 1500, rx: None, tx: &mut out }, set)
            });
            let syn = TcpPacket::new_checked(&out[0][20..]).unwrap();
            assert!(syn.syn());
            assert_eq!(syn.seq_number().0 as u32, sequence);
        }
    }

    #[test]
    fn contexts_are_bounded() {
        let mut contexts = Contexts::default();
        for mtu in 0..100 {
            contexts.get(1000 + mtu, Instant::ZERO);
        }
        assert_eq!(contexts.by_mtu.len(), MAX_CONTEXTS);
    }
}
