//! What makes one list of another: the fewest removals and insertions, if they are few.
//!
//! Source: E. W. Myers, "An O(ND) Difference Algorithm and Its Variations", Algorithmica 1986.

/// A step from the old list to the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// This one of the old list goes.
    Remove(usize),
    /// Before this one of the old list, or at its end, comes this one of the new list.
    Insert { before: usize, new: usize },
}

/// The edits, from the end of the lists to their beginning; none if there are more than `most`.
pub(super) fn diff(
    old: usize,
    new: usize,
    same: impl Fn(usize, usize) -> bool,
    most: usize,
) -> Option<Vec<Edit>> {
    // By diagonal (how much further the old list is, shifted by `most` + 1): how far the old list is.
    let middle = most + 1;
    let mut reach = vec![0usize; 2 * middle + 1];
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for round in 0..=most {
        rounds.push(reach[middle - round..=middle + round].to_vec());
        for diagonal in (middle - round..=middle + round).step_by(2) {
            let inserts = comes_by_insert(diagonal, round, middle, |d| reach[d]);
            let mut x =
                if inserts { reach[diagonal + 1] } else { reach[diagonal - 1] + usize::from(round > 0) };
            if round == 0 {
                x = 0;
            }
            // What is outside of the lists leads nowhere.
            let Some(mut y) = (x + middle).checked_sub(diagonal) else { continue };
            while x < old && y < new && same(x, y) {
                x += 1;
                y += 1;
            }
            reach[diagonal] = x;
            if x >= old && y >= new {
                return Some(back(&rounds, old, new, middle));
            }
        }
    }
    None
}

/// Whether the furthest way to a diagonal comes from the one above it, by an insertion.
fn comes_by_insert(diagonal: usize, round: usize, middle: usize, reach: impl Fn(usize) -> usize) -> bool {
    diagonal + round == middle || diagonal != middle + round && reach(diagonal - 1) < reach(diagonal + 1)
}

/// The way back through the rounds.
fn back(rounds: &[Vec<usize>], old: usize, new: usize, middle: usize) -> Vec<Edit> {
    let (mut x, mut y) = (old, new);
    let mut edits = Vec::new();
    for (round, reach) in rounds.iter().enumerate().skip(1).rev() {
        let at = |diagonal: usize| reach[diagonal + round - middle];
        let diagonal = x + middle - y;
        if comes_by_insert(diagonal, round, middle, at) {
            x = at(diagonal + 1);
            y = x + middle - (diagonal + 1);
            edits.push(Edit::Insert { before: x, new: y });
        } else {
            x = at(diagonal - 1);
            y = x + middle - (diagonal - 1);
            edits.push(Edit::Remove(x));
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edited(old: &[u8], edits: &[Edit], new: &[u8]) -> Vec<u8> {
        let mut list = old.to_vec();
        for edit in edits {
            match *edit {
                Edit::Remove(at) => drop(list.remove(at)),
                Edit::Insert { before, new: at } => list.insert(before, new[at]),
            }
        }
        list
    }

    proptest! {
        #[test]
        fn edits_make_the_new_list(
            old in prop::collection::vec(0u8..4, 0..20), new in prop::collection::vec(0u8..4, 0..20),
        ) {
            let edits = diff(old.len(), new.len(), |a, b| old[a] == new[b], 40).unwrap();
            prop_assert_eq!(edited(&old, &edits, &new), &new[..]);
            let fewer = edits.len().checked_sub(1);
            let with_fewer = fewer.and_then(|most| diff(old.len(), new.len(), |a, b| old[a] == new[b], most));
            prop_assert!(with_fewer.is_none(), "there is a shorter way");
        }
    }

    #[test]
    fn equal_lists_need_nothing() {
        assert_eq!(diff(5, 5, |a, b| a == b, 0), Some(Vec::new()));
        assert_eq!(diff(0, 0, |_, _| false, 3), Some(Vec::new()));
        assert_eq!(diff(1, 1, |_, _| false, 1), None);
    }
}
