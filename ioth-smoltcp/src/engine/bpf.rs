//! Classic BPF: the programs that SO_ATTACH_FILTER attaches to a socket (socket(7)).
//!
//! Read first: Linux's `Documentation/networking/filter.rst`. A program is checked once, as Linux's `bpf_check_classic`
//! does it; from then on it cannot fail, loop, or look beyond the packet. Jumps go forward only, so a run takes no more
//! steps than the program has instructions.

mod attach;
mod check;
mod packet;
#[cfg(test)]
mod tests;

use ioth_core::Errno;

pub(crate) use attach::Attached;
pub use packet::Packet;

/// Instructions that a program has at most (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Bytes of a `struct sock_filter`.
pub const INSTRUCTION_SIZE: usize = 8;
/// Words of scratch memory (`BPF_MEMWORDS`).
const MEMORY: usize = 16;

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when the condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A checked program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Box<[Instruction]>,
}

impl Filter {
    /// Reads a program from its C representation, an array of `struct sock_filter`, and checks it.
    ///
    /// # Errors
    /// [`FilterError`] for what Linux refuses.
    pub fn parse(bytes: &[u8]) -> Result<Filter, FilterError> {
        let program = bytes.chunks_exact(INSTRUCTION_SIZE);
        if !program.remainder().is_empty() || program.len() > MAX_INSTRUCTIONS {
            return Err(FilterError::Length);
        }
        Filter::new(program.map(instruction).collect())
    }

    /// Checks a program.
    ///
    /// # Errors
    /// [`FilterError`] for what Linux refuses.
    pub fn new(program: Box<[Instruction]>) -> Result<Filter, FilterError> {
        check::check(&program)?;
        Ok(Filter { program })
    }

    /// Its C representation, as [`parse`](Self::parse) takes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.program.len() * INSTRUCTION_SIZE);
        for instruction in &self.program {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        bytes
    }

    /// The program.
    pub fn program(&self) -> &[Instruction] {
        &self.program
    }

    /// How many bytes of the packet the socket gets; none at all when it is 0. A load from beyond the packet and a
    /// division by zero end the program with 0.
    pub fn run(&self, packet: &Packet<'_>) -> u32 {
        self.execute(packet).unwrap_or(0)
    }

    /// `None`: ended by what the packet lacks.
    fn execute(&self, packet: &Packet<'_>) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY]);
        let mut at = 0usize;
        loop {
            let Instruction { code, jt, jf, k } = *self.program.get(at)?;
            at += 1;
            let skip = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS if k >= packet::AD_OFF => {
                    match packet.ancillary(k, a, x) {
                        Some(value) => a = value,
                        // Linux: without a device the program ends with what it has.
                        None => return Some(a),
                    }
                }
                op::LD_W_ABS => a = packet.word(k)?,
                op::LD_H_ABS => a = packet.half(k)?,
                op::LD_B_ABS => a = packet.byte(k)?,
                op::LD_W_IND => a = packet.word(x.wrapping_add(k))?,
                op::LD_H_IND => a = packet.half(x.wrapping_add(k))?,
                op::LD_B_IND => a = packet.byte(x.wrapping_add(k))?,
                op::LD_W_LEN => a = packet.len(),
                op::LDX_W_LEN => x = packet.len(),
                op::LDX_B_MSH => x = (packet.byte(k)? & 0xf) << 2,
                op::LD_IMM => a = k,
                op::LDX_IMM => x = k,
                op::LD_MEM => a = *memory.get(k as usize)?,
                op::LDX_MEM => x = *memory.get(k as usize)?,
                op::ST => *memory.get_mut(k as usize)? = a,
                op::STX => *memory.get_mut(k as usize)? = x,
                op::ADD_K => a = a.wrapping_add(k),
                op::ADD_X => a = a.wrapping_add(x),
                op::SUB_K => a = a.wrapping_sub(k),
                op::SUB_X => a = a.wrapping_sub(x),
                op::MUL_K => a = a.wrapping_mul(k),
                op::MUL_X => a = a.wrapping_mul(x),
                op::DIV_K => a = a.checked_div(k)?,
                op::DIV_X => a = a.checked_div(x)?,
                op::MOD_K => a = a.checked_rem(k)?,
                op::MOD_X => a = a.checked_rem(x)?,
                op::AND_K => a &= k,
                op::AND_X => a &= x,
                op::OR_K => a |= k,
                op::OR_X => a |= x,
                op::XOR_K => a ^= k,
                op::XOR_X => a ^= x,
                // Linux: only the low five bits count.
                op::LSH_K => a = a.wrapping_shl(k),
                op::LSH_X => a = a.wrapping_shl(x),
                op::RSH_K => a = a.wrapping_shr(k),
                op::RSH_X => a = a.wrapping_shr(x),
                op::NEG => a = a.wrapping_neg(),
                op::TAX => x = a,
                op::TXA => a = x,
                op::JA => at += k as usize,
                op::JEQ_K => at += skip(a == k),
                op::JEQ_X => at += skip(a == x),
                op::JGT_K => at += skip(a > k),
                op::JGT_X => at += skip(a > x),
                op::JGE_K => at += skip(a >= k),
                op::JGE_X => at += skip(a >= x),
                op::JSET_K => at += skip(a & k != 0),
                op::JSET_X => at += skip(a & x != 0),
                op::RET_K => return Some(k),
                op::RET_A => return Some(a),
                _ => return None,
            }
        }
    }
}

/// Error returned by [`Filter::parse`] and [`Filter::new`]. All are `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// No instruction, more than 4096, or a part of one.
    #[error("filter: 1 to {MAX_INSTRUCTIONS} instructions of {INSTRUCTION_SIZE} bytes")]
    Length,
    /// No such instruction.
    #[error("filter: instruction {0}: unknown code")]
    Code(usize),
    /// A jump to or behind the end.
    #[error("filter: instruction {0}: jumps beyond the program")]
    Jump(usize),
    /// A cell of the scratch memory that is not there, or is read before it was written.
    #[error("filter: instruction {0}: no such cell, or read before it was written")]
    Memory(usize),
    /// A constant divisor of 0.
    #[error("filter: instruction {0}: divides by zero")]
    Division(usize),
    /// A constant shift of 32 bits or more.
    #[error("filter: instruction {0}: shifts by more than 31 bits")]
    Shift(usize),
    /// An ancillary load that is not known.
    #[error("filter: instruction {0}: no such ancillary value")]
    Ancillary(usize),
    /// The last instruction does not return.
    #[error("filter: the last instruction is no return")]
    NoReturn,
}

impl FilterError {
    /// The error as Linux numbers it.
    pub fn to_errno(self) -> Errno {
        Errno::EINVAL
    }
}

impl From<FilterError> for Errno {
    fn from(error: FilterError) -> Errno {
        error.to_errno()
    }
}

fn instruction(bytes: &[u8]) -> Instruction {
    Instruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

/// Codes of linux/bpf_common.h, put together.
mod op {
    const fn op(parts: [u32; 3]) -> u16 {
        (parts[0] | parts[1] | parts[2]) as u16
    }

    macro_rules! ops {
        ($($name:ident = $($part:ident)|+;)*) => {
            $(pub(super) const $name: u16 = op(parts(&[$(libc::$part),+]));)*
        };
    }

    const fn parts(given: &[u32]) -> [u32; 3] {
        let mut parts = [0; 3];
        let mut i = 0;
        while i < given.len() {
            parts[i] = given[i];
            i += 1;
        }
        parts
    }

    ops! {
        LD_W_ABS = BPF_LD | BPF_W | BPF_ABS;
        LD_H_ABS = BPF_LD | BPF_H | BPF_ABS;
        LD_B_ABS = BPF_LD | BPF_B | BPF_ABS;
        LD_W_IND = BPF_LD | BPF_W | BPF_IND;
        LD_H_IND = BPF_LD | BPF_H | BPF_IND;
        LD_B_IND = BPF_LD | BPF_B | BPF_IND;
        LD_W_LEN = BPF_LD | BPF_W | BPF_LEN;
        LD_IMM = BPF_LD | BPF_IMM;
        LD_MEM = BPF_LD | BPF_MEM;
        LDX_W_LEN = BPF_LDX | BPF_W | BPF_LEN;
        LDX_B_MSH = BPF_LDX | BPF_B | BPF_MSH;
        LDX_IMM = BPF_LDX | BPF_IMM;
        LDX_MEM = BPF_LDX | BPF_MEM;
        ST = BPF_ST;
        STX = BPF_STX;
        ADD_K = BPF_ALU | BPF_ADD | BPF_K;
        ADD_X = BPF_ALU | BPF_ADD | BPF_X;
        SUB_K = BPF_ALU | BPF_SUB | BPF_K;
        SUB_X = BPF_ALU | BPF_SUB | BPF_X;
        MUL_K = BPF_ALU | BPF_MUL | BPF_K;
        MUL_X = BPF_ALU | BPF_MUL | BPF_X;
        DIV_K = BPF_ALU | BPF_DIV | BPF_K;
        DIV_X = BPF_ALU | BPF_DIV | BPF_X;
        MOD_K = BPF_ALU | BPF_MOD | BPF_K;
        MOD_X = BPF_ALU | BPF_MOD | BPF_X;
        AND_K = BPF_ALU | BPF_AND | BPF_K;
        AND_X = BPF_ALU | BPF_AND | BPF_X;
        OR_K = BPF_ALU | BPF_OR | BPF_K;
        OR_X = BPF_ALU | BPF_OR | BPF_X;
        XOR_K = BPF_ALU | BPF_XOR | BPF_K;
        XOR_X = BPF_ALU | BPF_XOR | BPF_X;
        LSH_K = BPF_ALU | BPF_LSH | BPF_K;
        LSH_X = BPF_ALU | BPF_LSH | BPF_X;
        RSH_K = BPF_ALU | BPF_RSH | BPF_K;
        RSH_X = BPF_ALU | BPF_RSH | BPF_X;
        NEG = BPF_ALU | BPF_NEG;
        TAX = BPF_MISC | BPF_TAX;
        TXA = BPF_MISC | BPF_TXA;
        JA = BPF_JMP | BPF_JA;
        JEQ_K = BPF_JMP | BPF_JEQ | BPF_K;
        JEQ_X = BPF_JMP | BPF_JEQ | BPF_X;
        JGT_K = BPF_JMP | BPF_JGT | BPF_K;
        JGT_X = BPF_JMP | BPF_JGT | BPF_X;
        JGE_K = BPF_JMP | BPF_JGE | BPF_K;
        JGE_X = BPF_JMP | BPF_JGE | BPF_X;
        JSET_K = BPF_JMP | BPF_JSET | BPF_K;
        JSET_X = BPF_JMP | BPF_JSET | BPF_X;
        RET_K = BPF_RET | BPF_K;
        RET_A = BPF_RET | BPF_A;
    }
}
