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
//! In native mode, where the kernel can say which VLAN tag was taken out of a frame (`bpf_xdp_metadata_rx_vlan_tag`,
//! Linux 6.8; a veth takes the tags out of all), the tag is put back before that.
//!
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

/// Operations: `BPF_LDX | BPF_MEM` and `BPF_STX | BPF_MEM` of 32 and 16 bits, `BPF_ALU64` with registers and
/// immediates, jumps.
const LOAD_32: u8 = 0x61;
const LOAD_16: u8 = 0x69;
const STORE_32: u8 = 0x63;
const STORE_16: u8 = 0x6b;
/// Load 64 bits that stand in this instruction and the next: `BPF_LD | BPF_IMM | BPF_DW`.
const LOAD_WIDE: u8 = 0x18;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const ADD: u8 = 0x07;
/// Turn to network byte order: `BPF_ALU | BPF_TO_BE | BPF_END`.
const TO_NETWORK: u8 = 0xdc;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Source registers that say what an immediate is: a map's descriptor, a function of the kernel's.
const MAP: u8 = 1;
const KERNEL_FUNCTION: u8 = 2;
/// The frame pointer.
const STACK: u8 = 10;
/// Places in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const QUEUE: i16 = 16;
const XDP_PASS: i32 = 2;
/// Helpers: `bpf_xdp_adjust_head`, `bpf_redirect_map`.
const ADJUST_HEAD: i32 = 44;
const REDIRECT_MAP: i32 = 51;
/// The function that says which tag was taken out.
pub(super) const TAG_FUNCTION: &str = "bpf_xdp_metadata_rx_vlan_tag";
/// Places on the stack: the tag's protocol, and the tag.
const PROTOCOL: i16 = -8;
const TAG: i16 = -6;

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// The program, for this map of sockets; with the number of the function that knows of tags, they are put back.
pub(super) fn redirect_to(sockets: BorrowedFd<'_>, tag_function: Option<i32>) -> Vec<Instruction> {
    // The context is needed after calls, which leave r6 alone.
    let mut all = vec![op(MOVE_REGISTER, 6, 1, 0, 0)];
    if let Some(function) = tag_function {
        all.extend(put_tag_back(function));
    }
    all.extend([
        op(LOAD_32, 2, 6, QUEUE, 0),
        op(LOAD_WIDE, 1, MAP, 0, sockets.as_raw_fd()),
        op(0, 0, 0, 0, 0),
        op(MOVE, 3, 0, 0, XDP_PASS),
        op(CALL, 0, 0, 0, REDIRECT_MAP),
        op(EXIT, 0, 0, 0, 0),
    ]);
    all
}

/// Makes room for the tag that was taken out, moves the addresses to the front of it, and writes it.
fn put_tag_back(function: i32) -> Vec<Instruction> {
    let ask = [
        op(MOVE, 0, 0, 0, 0),
        op(STORE_32, STACK, 0, PROTOCOL, 0),
        op(MOVE_REGISTER, 2, STACK, 0, 0),
        op(ADD, 2, 0, 0, PROTOCOL.into()),
        op(MOVE_REGISTER, 3, STACK, 0, 0),
        op(ADD, 3, 0, 0, TAG.into()),
        op(CALL, 0, KERNEL_FUNCTION, 0, function),
    ];
    let make_room = [op(MOVE_REGISTER, 1, 6, 0, 0), op(MOVE, 2, 0, 0, -4), op(CALL, 0, 0, 0, ADJUST_HEAD)];
    let write = [
        op(LOAD_32, 4, 2, 4, 0),
        op(STORE_32, 2, 4, 0, 0),
        op(LOAD_32, 4, 2, 8, 0),
        op(STORE_32, 2, 4, 4, 0),
        op(LOAD_32, 4, 2, 12, 0),
        op(STORE_32, 2, 4, 8, 0),
        // The protocol is in network byte order already.
        op(LOAD_16, 4, STACK, PROTOCOL, 0),
        op(STORE_16, 2, 4, 12, 0),
        op(LOAD_16, 4, STACK, TAG, 0),
        op(TO_NETWORK, 4, 0, 0, 16),
        op(STORE_16, 2, 4, 14, 0),
    ];
    let check = |skipped: i16| {
        [
            op(LOAD_32, 2, 6, DATA, 0),
            op(LOAD_32, 3, 6, DATA_END, 0),
            op(MOVE_REGISTER, 4, 2, 0, 0),
            op(ADD, 4, 0, 0, 18),
            op(JUMP_GREATER, 4, 3, skipped, 0),
        ]
    };
    let length = |part: &[Instruction]| i16::try_from(part.len()).unwrap_or(0);
    let check = check(length(&write));
    let after_room = length(&check) + length(&write);
    let after_ask = 1 + length(&make_room) + after_room;
    let mut all = ask.to_vec();
    // No tag: nothing to be done. No room: the frame goes on as it is.
    all.push(op(JUMP_NOT_EQUAL, 0, 0, after_ask, 0));
    all.extend(make_room);
    all.push(op(JUMP_NOT_EQUAL, 0, 0, after_room, 0));
    all.extend(check);
    all.extend(write);
    all
}
