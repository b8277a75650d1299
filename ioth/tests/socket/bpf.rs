//! Classic BPF programs by chance, with the kernel as the judge: which of them it takes, and what they make of a message.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use ioth_kernel::calls;
use ioth_smoltcp::engine::bpf::{Filter, INSTRUCTION_SIZE, Instruction, Packet};

/// Programs that are tried.
const PROGRAMS: u32 = 30_000;
/// What they look at: a message of AF_UNIX has no headers.
const MESSAGE: [u8; 24] =
    [0x45, 1, 2, 3, 0, 0, 0xff, 0xfe, 8, 9, 10, 11, 12, 13, 14, 15, 0x80, 0, 0, 1, 20, 21, 22, 23];

/// A small generator: splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u32) as usize]
    }
}

#[test]
fn the_kernel_takes_and_runs_the_same() {
    let (sender, receiver) = UnixDatagram::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let mut dice = Dice(1);
    let (mut taken, mut run) = (0, 0);
    for _ in 0..PROGRAMS {
        let bytes = program(&mut dice);
        let ours = Filter::parse(&bytes);
        let theirs = calls::set_option(receiver.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &bytes);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?} / {theirs:?}: {bytes:?}");
        let Ok(filter) = ours else { continue };
        taken += 1;
        if filter.program().iter().any(looks_elsewhere) {
            continue;
        }
        run += 1;
        let ours = filter.run(&Packet { bytes: &MESSAGE, ..Packet::default() });
        sender.send(&MESSAGE).unwrap();
        let theirs = receiver.recv(&mut [0; 100]).unwrap_or(0);
        assert_eq!((ours as usize).min(MESSAGE.len()), theirs, "{:?}", filter.program());
    }
    assert!(taken > PROGRAMS / 4 && run > PROGRAMS / 5, "{taken} taken, {run} run");
}

/// Loads from in front of the message, where the kernel has whatever was there.
fn looks_elsewhere(one: &Instruction) -> bool {
    const IND: u16 = 0x40;
    const ABS: u16 = 0x20;
    const MSH: u16 = 0xa0;
    let ahead = (1 << 31..libc::SKF_AD_OFF as u32).contains(&one.k);
    match (one.code & 7, one.code & 0xe0) {
        (0, IND) => true,
        (0, ABS) => ahead,
        (1, MSH) => one.k >= 1 << 31,
        _ => false,
    }
}

fn program(dice: &mut Dice) -> Vec<u8> {
    const RET_A: [u8; INSTRUCTION_SIZE] = [0x16, 0, 0, 0, 0, 0, 0, 0];
    let mut program = Vec::new();
    for _ in 0..dice.below(14) {
        let one = instruction(dice);
        // Mostly such as some program could have, else the kernel would take hardly any.
        let alone = [&one[..], &RET_A.repeat(5)].concat();
        let load_from_memory = one[0] & 6 == 0 && one[0] & 0xe0 == 0x60;
        if Filter::parse(&alone).is_ok() || load_from_memory || dice.below(40) == 0 {
            program.extend_from_slice(&one);
        }
    }
    if dice.below(30) > 0 {
        program.extend_from_slice(&RET_A);
    }
    program
}

fn instruction(dice: &mut Dice) -> [u8; INSTRUCTION_SIZE] {
    // Class, operation or size and mode, source. Now and then anything at all.
    let code = match dice.below(20) {
        0 => dice.below(0x200),
        _ => dice.below(8) | dice.of(&[0, 8, 0x10, 0x18]) | dice.below(16) << 4,
    } as u16;
    let k = match dice.below(8) {
        0 => dice.next() as u32,
        1 => dice.of(&[0, 31, 32, 15, 16, u32::MAX, 1 << 31]),
        2 => {
            let known = [libc::SKF_AD_PROTOCOL, libc::SKF_AD_PKTTYPE, libc::SKF_AD_ALU_XOR_X];
            (libc::SKF_AD_OFF + dice.of(&[known[0], known[1], known[2], libc::SKF_AD_IFINDEX, 2, 64])) as u32
        }
        _ => dice.below(26),
    };
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
    [c0, c1, dice.below(4) as u8, dice.below(4) as u8, k0, k1, k2, k3]
}
