//! The program that runs in the kernel for every frame that comes in.
//!
//! It is as short as can be, so it is written down as it is, and no compiler is needed for it:
//!
//! ```text
//! r2 = context->rx_queue_index
//! r1 = map of the sockets
//! r3 = XDP_PASS                       what becomes of frames of queues without a socket
//! call bpf_redirect_map
//! exit
//! ```
//! Source: `Documentation/bpf/standardization/instruction-set.rst`, `linux/bpf.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction, `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination register in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Load 32 bits from memory: `BPF_LDX | BPF_MEM | BPF_W`.
const LOAD_WORD: u8 = 0x61;
/// Load 64 bits that stand in this instruction and the next: `BPF_LD | BPF_IMM | BPF_DW`.
const LOAD_WIDE: u8 = 0x18;
/// Set 64 bits to an immediate: `BPF_ALU64 | BPF_MOV | BPF_K`.
const MOVE: u8 = 0xb7;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// The wide immediate is a descriptor of a map: `BPF_PSEUDO_MAP_FD`, as source register.
const MAP: u8 = 1 << 4;
/// Place of the queue's number in `struct xdp_md`.
const QUEUE: i16 = 16;
const XDP_PASS: i32 = 2;
/// Number of the helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;

/// The program, for this map of sockets.
pub(super) fn redirect_to(sockets: BorrowedFd<'_>) -> [Instruction; 6] {
    let op = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    [
        op(LOAD_WORD, 1 << 4 | 2, QUEUE, 0),
        op(LOAD_WIDE, MAP | 1, 0, sockets.as_raw_fd()),
        op(0, 0, 0, 0),
        op(MOVE, 3, 0, XDP_PASS),
        op(CALL, 0, 0, REDIRECT_MAP),
        op(EXIT, 0, 0, 0),
    ]
}
