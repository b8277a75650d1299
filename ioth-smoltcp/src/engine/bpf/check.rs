//! The check that a program passes before it is ever run: Linux's `bpf_check_classic`.

use super::packet::{AD_OFF, is_ancillary};
use super::{FilterError, Instruction, MAX_INSTRUCTIONS, MEMORY, op};

/// Whether Linux takes the program.
pub(super) fn check(program: &[Instruction]) -> Result<(), FilterError> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(FilterError::Length);
    }
    for (at, instruction) in program.iter().enumerate() {
        check_one(*instruction, at, program.len())?;
    }
    match program.last().map(|last| last.code) {
        Some(op::RET_K | op::RET_A) => check_memory(program),
        _ => Err(FilterError::NoReturn),
    }
}

fn check_one(instruction: Instruction, at: usize, len: usize) -> Result<(), FilterError> {
    let Instruction { code, jt, jf, k } = instruction;
    // How many instructions follow: a jump has to end on one of them.
    let rest = len - at - 1;
    match code {
        op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS if k >= AD_OFF && !is_ancillary(k) => {
            Err(FilterError::Ancillary(at))
        }
        op::DIV_K | op::MOD_K if k == 0 => Err(FilterError::Division(at)),
        op::LSH_K | op::RSH_K if k >= 32 => Err(FilterError::Shift(at)),
        op::LD_MEM | op::LDX_MEM | op::ST | op::STX if k as usize >= MEMORY => Err(FilterError::Memory(at)),
        op::JA if k as usize >= rest => Err(FilterError::Jump(at)),
        _ if is_branch(code) && usize::from(jt.max(jf)) >= rest => Err(FilterError::Jump(at)),
        _ if is_known(code) => Ok(()),
        _ => Err(FilterError::Code(at)),
    }
}

/// No cell may be read on any way through the program that did not write it before: Linux's
/// `check_load_and_stores`.
fn check_memory(program: &[Instruction]) -> Result<(), FilterError> {
    // By instruction, the cells that every jump to it has written.
    let mut arriving = vec![u16::MAX; program.len()];
    let mut written = 0u16;
    for (at, instruction) in program.iter().enumerate() {
        written &= arriving[at];
        let cell = || 1u16 << (instruction.k as usize % MEMORY);
        match instruction.code {
            op::ST | op::STX => written |= cell(),
            op::LD_MEM | op::LDX_MEM if written & cell() == 0 => return Err(FilterError::Memory(at)),
            op::JA => {
                arriving[at + 1 + instruction.k as usize] &= written;
                written = u16::MAX;
            }
            code if is_branch(code) => {
                arriving[at + 1 + usize::from(instruction.jt)] &= written;
                arriving[at + 1 + usize::from(instruction.jf)] &= written;
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_branch(code: u16) -> bool {
    matches!(
        code,
        op::JEQ_K | op::JEQ_X | op::JGT_K | op::JGT_X | op::JGE_K | op::JGE_X | op::JSET_K | op::JSET_X
    )
}

/// Linux's `chk_code_allowed`.
fn is_known(code: u16) -> bool {
    let load = matches!(
        code,
        op::LD_W_ABS
            | op::LD_H_ABS
            | op::LD_B_ABS
            | op::LD_W_IND
            | op::LD_H_IND
            | op::LD_B_IND
            | op::LD_W_LEN
            | op::LD_IMM
            | op::LD_MEM
            | op::LDX_W_LEN
            | op::LDX_B_MSH
            | op::LDX_IMM
            | op::LDX_MEM
    );
    let arithmetic = matches!(
        code,
        op::ADD_K
            | op::ADD_X
            | op::SUB_K
            | op::SUB_X
            | op::MUL_K
            | op::MUL_X
            | op::DIV_K
            | op::DIV_X
            | op::MOD_K
            | op::MOD_X
            | op::AND_K
            | op::AND_X
            | op::OR_K
            | op::OR_X
            | op::XOR_K
            | op::XOR_X
            | op::LSH_K
            | op::LSH_X
            | op::RSH_K
            | op::RSH_X
            | op::NEG
    );
    let other = matches!(code, op::ST | op::STX | op::TAX | op::TXA | op::JA | op::RET_K | op::RET_A);
    load || arithmetic || other || is_branch(code)
}
