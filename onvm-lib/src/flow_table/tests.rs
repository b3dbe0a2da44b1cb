//! The table against a map, and against those who pick its flows.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn key(n: u32) -> FlowKey {
    let [_, a, b, c] = n.to_be_bytes();
    FlowKey::v4(Ipv4Addr::new(10, a, b, c), Ipv4Addr::new(10, 0, 0, 1), 1024, 80, 6)
}

/// The lower the value, the sooner it goes.
#[allow(clippy::unnecessary_wraps, reason = "a rank may be none")]
fn by_value(_: &FlowKey, value: &u64) -> Option<u64> {
    Some(*value)
}

/// Every flow is in one bucket of its own, every slot is used or free, and every spill is counted.
fn assert_sound<V>(table: &FlowTable<V>) {
    let mut spilled = vec![0; table.buckets.len()];
    let mut places = vec![0; table.slots.len()];
    for (at, bucket) in table.buckets.iter().enumerate() {
        for slot in bucket.slots.into_iter().filter(|slot| *slot != FREE) {
            let entry = table.slots[slot as usize].as_ref().expect("a place without a flow");
            places[slot as usize] += 1;
            if table.home(entry.hash) != at {
                assert_eq!(table.other(entry.hash), at, "a flow in a bucket that is not its own");
                spilled[table.home(entry.hash)] += 1;
            }
        }
    }
    assert_eq!(table.buckets.iter().map(|b| b.spilled).collect::<Vec<_>>(), spilled);
    for (slot, places) in places.into_iter().enumerate() {
        let number = u32::try_from(slot).unwrap();
        let free = table.free.iter().filter(|free| **free == number).count();
        assert_eq!((places, free), if table.slots[slot].is_some() { (1, 0) } else { (0, 1) });
    }
    assert!(table.len() <= table.capacity() && table.slots.capacity() <= table.capacity());
}

#[test]
fn a_flow_takes_no_more_than_was_promised() {
    let each = |value: usize, entry: usize| {
        let table = FlowTable::<()>::new(1_000_000);
        let buckets = table.buckets.len() * size_of::<Bucket>();
        buckets.div_ceil(1_000_000) + entry + size_of::<u32>() - value
    };
    assert!(each(80, size_of::<Option<Entry<[u64; 10]>>>()) <= 96);
    assert!(each(0, size_of::<Option<Entry<()>>>()) <= 96);
    // Connection tables of a million entries are to be below 200 MB.
    assert!(each(80, size_of::<Option<Entry<[u64; 10]>>>()) + 80 <= 175);
}

#[test]
fn a_full_table_of_honest_flows_has_turned_away_none() {
    let most = 200_000;
    let mut table = FlowTable::new(most as usize);
    for n in 0..most {
        assert_eq!(table.insert(key(n).hash32(), key(n), u64::from(n), by_value), Inserted::New);
    }
    assert_eq!(table.len(), most as usize);
    assert_sound(&table);
    for n in 0..most {
        assert_eq!(table.get(key(n).hash32(), &key(n)), Some(&u64::from(n)));
    }
    // From here on each takes the place of an old one, if not of the oldest.
    let mut out = Vec::new();
    for n in most..most + 1000 {
        match table.insert(key(n).hash32(), key(n), u64::from(n), by_value) {
            Inserted::Evicted(_, value) => out.push(value),
            other => panic!("{other:?}"),
        }
    }
    let mean = out.iter().sum::<u64>() / 1000;
    assert!(mean < u64::from(most) / 4, "the mean of those that went is {mean}");
    assert_eq!(table.len(), most as usize);
    assert_sound(&table);
}

#[test]
fn equal_hashes_push_out_each_other_only() {
    let mut table = FlowTable::new(1000);
    assert_eq!(table.insert(7, key(60_000), 0, by_value), Inserted::New);
    let mut evicted = 0;
    for n in 1..=100u32 {
        match table.insert(0x1234_5678, key(n), u64::from(n), by_value) {
            Inserted::New => {}
            Inserted::Evicted(_, value) => {
                evicted += 1;
                assert_eq!(value, evicted, "the lowest goes");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((table.len(), evicted), (CANDIDATES + 1, 100 - CANDIDATES as u64));
    assert!(table.get(7, &key(60_000)).is_some());
    assert_sound(&table);
}

#[test]
fn the_protected_stay() {
    let mut table = FlowTable::new(1000);
    let even = |_: &FlowKey, value: &u64| value.is_multiple_of(2).then_some(*value);
    for n in 0..100u32 {
        let _ = table.insert(1, key(n), u64::from(n), even);
    }
    let mut values: Vec<u64> = table.iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    // Each odd one took the place of an even one, until there was none.
    assert_eq!(values.len(), CANDIDATES);
    assert!(values.iter().all(|value| value % 2 == 1), "{values:?}");
    assert_eq!(table.insert(1, key(200), 7, even), Inserted::Refused(7));
    assert_sound(&table);
}

#[test]
fn a_table_for_one_flow_works() {
    let mut table = FlowTable::new(0);
    assert_eq!(table.capacity(), 1);
    assert_eq!(table.insert(1, key(1), 1, by_value), Inserted::New);
    assert_eq!(table.insert(2, key(2), 2, by_value), Inserted::Evicted(key(1), 1));
    assert_eq!(table.insert(2, key(2), 3, by_value), Inserted::Replaced(2));
    assert_eq!(table.remove(2, &key(2)), Some(3));
    assert!(table.is_empty() && table.remove(2, &key(2)).is_none());
    assert_sound(&table);
}

#[test]
fn a_sweep_looks_at_so_many_and_takes_turns() {
    let mut table = FlowTable::new(1000);
    for n in 0..1000u32 {
        let _ = table.insert(key(n).hash32(), key(n), u64::from(n), by_value);
    }
    let mut seen = 0;
    assert_eq!(
        table.sweep(300, |_, _| {
            seen += 1;
            true
        }),
        0
    );
    assert_eq!(seen, 300);
    assert_eq!(table.sweep(300, |_, _| false), 300);
    assert_eq!(table.sweep(400, |_, _| false), 400);
    // The first 300 were kept; a second look comes to them, and one that is too long sees none twice.
    let mut seen = 0;
    assert_eq!(
        table.sweep(10_000, |_, value| {
            seen += 1;
            *value < 100
        }),
        200
    );
    assert_eq!((seen, table.len()), (300, 100));
    assert_sound(&table);
}

#[test]
fn guesses_are_checked() {
    let mut table = FlowTable::new(100);
    for n in 0..50u32 {
        let _ = table.insert(n % 3, key(n), u64::from(n), by_value);
    }
    let hashes = [0, 1, 2, 3];
    let mut guesses = [Guess::NONE; 4];
    table.locate(&hashes, &mut guesses);
    assert_eq!(guesses[3], Guess::NONE);
    table.touch(&guesses);
    let there: Vec<(FlowKey, u64)> = table.iter().map(|(key, value)| (*key, *value)).collect();
    for (key, value) in there {
        let hash = u32::try_from(value % 3).unwrap();
        // The right guess, the wrong one, one of a flow that is gone, and one out of range.
        for guess in guesses.into_iter().chain([Guess(99), Guess(u32::MAX - 1)]) {
            assert_eq!(table.find_at(guess, hash, &key), Some(&mut value.clone()));
        }
        assert!(table.find_at(guesses[3], 3, &key).is_none());
    }
}

/// What is done to a table.
#[derive(Clone, Debug)]
enum Step {
    Insert(u8),
    Remove(u8),
    Sweep(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<u8>().prop_map(Step::Insert),
        2 => any::<u8>().prop_map(Step::Remove),
        1 => (0usize..40, 1u64..8).prop_map(|(slots, divisor)| Step::Sweep(slots, divisor)),
    ];
    prop::collection::vec(step, 1..400)
}

/// Keys of three kinds, whose hashes take so many values.
fn keyed(n: u8, hashes: u32) -> (u32, FlowKey) {
    let six = Ipv6Addr::from(u128::from(n));
    let key = if n.is_multiple_of(3) { FlowKey::v6(six, six, 1, 2, 17) } else { key(n.into()) };
    (u32::from(n).wrapping_mul(0x0101_0101) % hashes, key)
}

proptest! {
    #[test]
    fn behaves_like_a_map(
        steps in steps(),
        most in prop::sample::select(vec![1usize, 7, 40, 300]),
        hashes in prop::sample::select(vec![1u32, 3, 50, u32::MAX]),
    ) {
        let mut table = FlowTable::new(most);
        let mut map: HashMap<FlowKey, u64> = HashMap::new();
        for (value, step) in (1u64..).zip(steps) {
            match step {
                Step::Insert(n) => {
                    let (hash, key) = keyed(n, hashes);
                    let full = map.len() == most;
                    let before = map.insert(key, value);
                    match table.insert(hash, key, value, by_value) {
                        Inserted::New => prop_assert!(before.is_none() && !full),
                        Inserted::Replaced(old) => prop_assert_eq!(before, Some(old)),
                        Inserted::Evicted(out, old) => {
                            prop_assert!(before.is_none());
                            prop_assert_eq!(map.remove(&out), Some(old));
                        }
                        Inserted::Refused(_) => {
                            // Only where there is nobody in its 34 buckets.
                            prop_assert!(full && before.is_none());
                            map.remove(&key);
                        }
                    }
                }
                Step::Remove(n) => {
                    let (hash, key) = keyed(n, hashes);
                    prop_assert_eq!(table.remove(hash, &key), map.remove(&key));
                }
                Step::Sweep(slots, divisor) => {
                    let mut out = Vec::new();
                    let gone = table.sweep(slots, |key, value| {
                        let keep = *value % divisor != 0;
                        if !keep { out.push((*key, *value)); }
                        keep
                    });
                    prop_assert_eq!(gone, out.len());
                    for (key, value) in out {
                        prop_assert_eq!(map.remove(&key), Some(value));
                    }
                }
            }
            prop_assert_eq!(table.len(), map.len());
        }
        assert_sound(&table);
        let all: HashMap<FlowKey, u64> = table.iter().map(|(key, value)| (*key, *value)).collect();
        prop_assert_eq!(&all, &map);
        for n in 0..=255 {
            let (hash, key) = keyed(n, hashes);
            prop_assert_eq!(table.get(hash, &key), map.get(&key));
            let mut guess = [Guess::NONE];
            table.locate(&[hash], &mut guess);
            prop_assert_eq!(table.find_at(guess[0], hash, &key).copied(), map.get(&key).copied());
        }
    }

    #[test]
    fn a_table_that_was_handed_over_is_the_same(
        before in steps(),
        after in steps(),
        most in prop::sample::select(vec![7usize, 40, 300]),
        hashes in prop::sample::select(vec![3u32, 50, u32::MAX]),
    ) {
        let run = |table: &mut FlowTable<u64>, steps: &[Step], from: u64| {
            for (value, step) in (from..).zip(steps) {
                match step {
                    Step::Insert(n) => {
                        let (hash, key) = keyed(*n, hashes);
                        let _ = table.insert(hash, key, value, by_value);
                    }
                    Step::Remove(n) => {
                        let (hash, key) = keyed(*n, hashes);
                        table.remove(hash, &key);
                    }
                    // All of it: which slots come first is not handed over.
                    Step::Sweep(_, divisor) => {
                        table.sweep(usize::MAX, |_, value| *value % divisor != 0);
                    }
                }
            }
        };
        let mut first = FlowTable::new(most);
        run(&mut first, &before, 1);
        let mut second = FlowTable::new(most);
        for flow in first.placed() {
            prop_assert_eq!(second.put_back(flow.place, flow.hash, *flow.key, *flow.value), Ok(()));
        }
        assert_sound(&second);
        let all = |table: &FlowTable<u64>| -> Vec<(u32, u32, FlowKey, u64)> {
            table.placed().map(|flow| (flow.place, flow.hash, *flow.key, *flow.value)).collect()
        };
        prop_assert_eq!(all(&first), all(&second));
        run(&mut first, &after, 1000);
        run(&mut second, &after, 1000);
        prop_assert_eq!(all(&first), all(&second));
        // Into a smaller one goes what finds room, and nothing is there twice.
        let mut small = FlowTable::new(5);
        let mut left = 0;
        for flow in first.placed() {
            left += usize::from(small.put_back(flow.place, flow.hash, *flow.key, *flow.value).is_err());
        }
        assert_sound(&small);
        prop_assert_eq!(small.len() + left, first.len());
    }
}
