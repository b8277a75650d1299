use proptest::prelude::*;

use super::*;

fn ins(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn program(program: &[Instruction]) -> Filter {
    Filter::new(program.into()).unwrap()
}

fn refused(program: &[Instruction]) -> FilterError {
    Filter::new(program.into()).unwrap_err()
}

fn view(bytes: &[u8]) -> Packet<'_> {
    Packet { bytes, ..Packet::default() }
}

const ADD_1: Instruction = Instruction { code: op::ADD_K, jt: 0, jf: 0, k: 1 };
const RET_A: Instruction = Instruction { code: op::RET_A, jt: 0, jf: 0, k: 0 };

#[test]
fn what_is_refused() {
    assert_eq!(refused(&[]), FilterError::Length);
    assert_eq!(refused(&vec![RET_A; 4097]), FilterError::Length);
    assert!(Filter::new(vec![RET_A; 4096].into()).is_ok());
    assert_eq!(Filter::parse(&[0; 7]), Err(FilterError::Length));
    assert_eq!(refused(&[ADD_1]), FilterError::NoReturn);
    assert_eq!(refused(&[ins(0xffff, 0), RET_A]), FilterError::Code(0));
    // BPF_RET | BPF_X is in the header and nowhere else.
    assert_eq!(refused(&[ins(0x0e, 0)]), FilterError::Code(0));
    assert_eq!(refused(&[ins(op::DIV_K, 0), RET_A]), FilterError::Division(0));
    assert_eq!(refused(&[ins(op::MOD_K, 0), RET_A]), FilterError::Division(0));
    assert_eq!(refused(&[ins(op::LSH_K, 32), RET_A]), FilterError::Shift(0));
    assert_eq!(refused(&[ins(op::ST, 16), RET_A]), FilterError::Memory(0));
    assert_eq!(refused(&[ins(op::LD_MEM, 3), RET_A]), FilterError::Memory(0));
    assert_eq!(refused(&[ins(op::JA, 1), RET_A]), FilterError::Jump(0));
    assert_eq!(refused(&[ins(op::JA, u32::MAX), RET_A]), FilterError::Jump(0));
    assert_eq!(refused(&[jump(op::JEQ_K, 0, 0, 1), RET_A]), FilterError::Jump(0));
    assert_eq!(refused(&[ins(op::LD_W_ABS, packet::AD_OFF + 2), RET_A]), FilterError::Ancillary(0));
    assert_eq!(refused(&[ins(op::LD_B_ABS, packet::AD_OFF + 64), RET_A]), FilterError::Ancillary(0));
    // Written on one way only.
    let one_way = [jump(op::JEQ_K, 0, 0, 1), ins(op::ST, 2), ins(op::LD_MEM, 2), RET_A];
    assert_eq!(refused(&one_way), FilterError::Memory(2));
    assert!(Filter::new(vec![ins(op::ST, 2), ins(op::LD_MEM, 2), RET_A].into()).is_ok());
}

#[test]
fn loads() {
    let bytes = [0x45, 1, 2, 3, 4, 5, 6, 7];
    let run = |instruction: Instruction| program(&[instruction, RET_A]).run(&view(&bytes));
    assert_eq!(run(ins(op::LD_W_ABS, 4)), 0x0405_0607);
    assert_eq!(run(ins(op::LD_W_ABS, 5)), 0);
    assert_eq!(run(ins(op::LD_H_ABS, 1)), 0x0102);
    assert_eq!(run(ins(op::LD_B_ABS, 7)), 7);
    assert_eq!(run(ins(op::LD_B_ABS, 8)), 0);
    assert_eq!(run(ins(op::LD_W_LEN, 0)), 8);
    assert_eq!(run(ins(op::LD_IMM, 77)), 77);
    let header = [ins(op::LDX_B_MSH, 0), ins(op::TXA, 0), RET_A];
    assert_eq!(program(&header).run(&view(&bytes)), 20);
    let indirect = [ins(op::LDX_IMM, 2), ins(op::LD_H_IND, 1), RET_A];
    assert_eq!(program(&indirect).run(&view(&bytes)), 0x0304);
}

#[test]
fn headers_in_front_of_the_view() {
    let bytes: Vec<u8> = (0..40).collect();
    let packet = Packet { bytes: &bytes, start: 34, link: Some(0), network: 14, ..Packet::default() };
    let run = |k: i32| program(&[ins(op::LD_B_ABS, k as u32), RET_A]).run(&packet);
    assert_eq!(run(0), 34);
    assert_eq!(run(libc::SKF_LL_OFF + 6), 6);
    assert_eq!(run(libc::SKF_NET_OFF + 9), 23);
    assert_eq!(run(libc::SKF_NET_OFF + 26), 0);
    assert_eq!(program(&[ins(op::LD_W_LEN, 0), RET_A]).run(&packet), 6);
    let linkless = Packet { link: None, ..packet };
    assert_eq!(program(&[ins(op::LD_B_ABS, libc::SKF_LL_OFF as u32), RET_A]).run(&linkless), 0);
}

#[test]
fn ancillary_values() {
    let packet =
        Packet { bytes: &[0; 20], protocol: 0x806, kind: 4, ifindex: 7, hatype: 1, ..Packet::default() };
    let run = |what: i32| {
        program(&[
            ins(op::LD_IMM, 6),
            ins(op::LDX_IMM, 3),
            ins(op::LD_W_ABS, (libc::SKF_AD_OFF + what) as u32),
            RET_A,
        ])
        .run(&packet)
    };
    assert_eq!(run(libc::SKF_AD_PROTOCOL), 0x806);
    assert_eq!(run(libc::SKF_AD_PKTTYPE), 4);
    assert_eq!(run(libc::SKF_AD_IFINDEX), 7);
    assert_eq!(run(libc::SKF_AD_HATYPE), 1);
    assert_eq!(run(libc::SKF_AD_ALU_XOR_X), 5);
    assert_eq!(run(libc::SKF_AD_VLAN_TAG_PRESENT), 0);
}

#[test]
fn netlink_attributes() {
    let attribute = |kind: u16, value: &[u8]| {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let nest = [attribute(8, &[1]), attribute(9, &[2, 3, 4, 5])].concat();
    let bytes = [vec![0; 16], attribute(1, &[7; 5]), attribute(2, &nest)].concat();
    let find = |what: i32, at: u32, kind: u32| {
        let load = ins(op::LD_W_ABS, (libc::SKF_AD_OFF + what) as u32);
        program(&[ins(op::LD_IMM, at), ins(op::LDX_IMM, kind), load, RET_A]).run(&view(&bytes))
    };
    assert_eq!(find(libc::SKF_AD_NLATTR, 16, 2), 28);
    assert_eq!(find(libc::SKF_AD_NLATTR, 16, 3), 0);
    assert_eq!(find(libc::SKF_AD_NLATTR_NEST, 28, 9), 40);
    assert_eq!(find(libc::SKF_AD_NLATTR_NEST, u32::MAX, 9), 0);
}

#[test]
fn arithmetic() {
    let run = |a: u32, x: u32, code: u16, k: u32| {
        program(&[ins(op::LD_IMM, a), ins(op::LDX_IMM, x), ins(code, k), RET_A]).run(&view(&[]))
    };
    assert_eq!(run(u32::MAX, 0, op::ADD_K, 2), 1);
    assert_eq!(run(1, 2, op::SUB_X, 0), u32::MAX);
    assert_eq!(run(1 << 31, 2, op::MUL_X, 0), 0);
    assert_eq!(run(7, 0, op::DIV_X, 0), 0);
    assert_eq!(run(7, 2, op::MOD_X, 0), 1);
    assert_eq!(run(1, 33, op::LSH_X, 0), 2);
    assert_eq!(run(5, 0, op::NEG, 0), 5u32.wrapping_neg());
}

proptest! {
    /// No program that passed the check panics, and it ends.
    #[test]
    fn whatever_passes_runs(
        raw in proptest::collection::vec((any::<u8>(), 0u8..4, 0u8..4, prop_oneof![0u32..20, any::<u32>()]), 1..40),
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        start in 0usize..70,
        network in 0usize..70,
    ) {
        let mut program: Vec<_> = raw
            .into_iter()
            .map(|(code, jt, jf, k)| Instruction { code: u16::from(code), jt, jf, k })
            .filter(|instruction| check::check(&[*instruction, RET_A, RET_A, RET_A, RET_A, RET_A]).is_ok())
            .collect();
        program.extend([RET_A; 4]);
        if let Ok(filter) = Filter::new(program.into()) {
            prop_assert_eq!(Filter::parse(&filter.to_bytes()), Ok(filter.clone()));
            filter.run(&Packet { bytes: &bytes, start, network, ifindex: 1, ..Packet::default() });
        }
    }
}
