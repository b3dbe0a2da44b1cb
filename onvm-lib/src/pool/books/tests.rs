//! The books, in hand-made cases.

use super::super::Geometry;
use super::*;
use crate::ring::Op;
use crate::shm::Pages;

fn books(buffers: u32) -> Books {
    let pool = Pool::create(Geometry::new(buffers, 128).unwrap(), Pages::Plain).unwrap();
    Books::new(pool, 7)
}

#[test]
fn a_buffer_comes_back_once() {
    let mut b = books(4);
    let packet = b.allocate(60).unwrap();
    let d = b.hand_out(packet, Holder::SHARED);
    let back = b.receive(d, Holder::SHARED).unwrap();
    b.free(back);
    assert_eq!(b.receive(d, Holder::SHARED).unwrap_err(), Refusal::NotHeld, "returned twice");
    let again = b.allocate(60).unwrap();
    let newer = b.hand_out(again, Holder::SHARED);
    assert_eq!(newer.buffer(), d.buffer());
    assert_eq!(b.receive(d, Holder::SHARED).unwrap_err(), Refusal::NotHeld, "an old generation");
    assert!(b.receive(newer, Holder::SHARED).map(|p| b.free(p)).is_ok());
    assert_eq!(b.free_count(), 4);
}

#[test]
fn nobody_returns_what_another_holds() {
    let mut b = books(2);
    let packet = b.allocate(60).unwrap();
    let d = b.hand_out(packet, Holder::isolated(5));
    assert_eq!(b.receive(d, Holder::SHARED).unwrap_err(), Refusal::NotHeld);
    assert_eq!(b.receive(d, Holder::isolated(6)).unwrap_err(), Refusal::NotHeld);
    let never = Descriptor::new(1 - d.buffer(), 0, 0, 0);
    assert!(b.receive(never, Holder::SHARED).is_err(), "never handed out");
    assert_eq!(b.receive(Descriptor::new(2, 0, 0, 0), Holder::SHARED).unwrap_err(), Refusal::OutOfPool);
    let lost = b.reclaim(Holder::isolated(5));
    assert_eq!(lost.len(), 1);
    for (packet, full) in lost {
        assert!(full);
        b.free(packet);
    }
    assert_eq!(b.free_count(), 2);
}

#[test]
fn bursts_are_filled_and_end_as_single_packets_do() {
    let mut b = books(4);
    let (frame, mut burst) = ([7; 60], Vec::new());
    assert_eq!(b.fill(std::iter::repeat_n((&frame[..], 5), 3), 9, &mut burst), (3, 180));
    assert!(burst.iter().all(|p| p.bytes(b.pool()) == frame && p.descriptor().hash() == 5));
    assert_eq!(b.note(&burst[0]), Note { timestamp_ns: 9, wire_length: 60 });
    assert_eq!(b.pool().note(burst[0].descriptor().buffer()).timestamp_ns, 9);
    let out: Vec<_> = b.hand_out_all(&mut burst, Holder::SHARED, |d| d).collect();
    // One twice in the same run, as a hostile NF might say: only the first is believed.
    let lies = [out[0], out[1], out[0], out[2]];
    assert_eq!(b.discard_run(&lies, Holder::SHARED), (2, 120));
    assert_eq!(b.receive_run(&lies[2..], Holder::SHARED, &mut burst), 0);
    assert_eq!(b.receive_run(&[Descriptor::new(4, 0, 0, 0)], Holder::SHARED, &mut burst), 0);
    assert_eq!(b.receive_run(&lies[3..], Holder::SHARED, &mut burst), 1);
    assert_eq!(
        b.fill(std::iter::repeat_n((&frame[..], 5), 9), 9, &mut burst),
        (3, 180),
        "no more than are free"
    );
    assert_eq!((b.free_count(), burst.len()), (0, 4));
    assert_eq!(b.free_all(&mut burst), 240);
    assert_eq!(b.free_count(), 4);
}

#[test]
fn what_an_nf_made_is_counted_when_it_arrives() {
    let mut b = books(2);
    for (op, generated) in [(Op::Empty, 0), (Op::Next, 1)] {
        let packet = b.allocate(60).unwrap();
        let d = b.hand_out(packet, Holder::SHARED.of_empty());
        assert_eq!(b.empties_out(), 1);
        let back = b.receive(d.with_destination(Destination::new(op, 0)), Holder::SHARED).unwrap();
        assert_eq!((b.empties_out(), b.generated()), (0, generated));
        b.free(back);
    }
}

#[test]
fn a_copy_has_the_same_bytes_and_its_own_buffer() {
    let mut b = books(2);
    let mut packet = b.allocate(4).unwrap();
    packet.bytes_mut(&b.pool().clone()).copy_from_slice(b"abcd");
    b.set_note(&packet, Note { timestamp_ns: 5, wire_length: 90 });
    let copy = b.duplicate(&packet).unwrap();
    assert_ne!(copy.descriptor().buffer(), packet.descriptor().buffer());
    assert_eq!(copy.bytes(b.pool()), b"abcd");
    assert_eq!(b.note(&copy), Note { timestamp_ns: 5, wire_length: 90 });
    assert!(b.duplicate(&packet).is_none(), "the pool is exhausted");
    b.free(copy);
    b.free(packet);
    assert_eq!(b.free_count(), 2);
}
