//! Compiled sets that change in a few rules, without building them anew.
//!
//! A file that is read again mostly says what it said before: the classifier of the set before it takes out and puts in
//! what differs (`diff`). A single rule is changed in the set in force, between two bursts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::checks::Checks;
use super::diff::{Edit, diff};
use super::{Compiled, expand};
use crate::rules::rate::Over;
use crate::rules::{Rule, RuleSet};

/// Rules that may differ from one set to the next, at most; beyond that building anew is quicker.
const FEW: usize = 128;
/// Five-field rules that these may be.
const FEW_FIVES: usize = 512;
/// Five-field rules that a single changed rule becomes for each family: each takes some 15 µs of the packets' time.
const FIVES: usize = 16;

/// A name as a number, to look for it among many.
pub(super) fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl Compiled {
    /// The set that follows this one.
    pub(crate) fn followed_by(self, set: RuleSet) -> Self {
        let same = |a: usize, b: usize| self.set.rules[a].matches == set.rules[b].matches;
        match diff(self.set.rules.len(), set.rules.len(), same, FEW) {
            Some(edits) => self.edited(set, &edits),
            None => Self::new(set),
        }
    }

    fn edited(mut self, set: RuleSet, edits: &[Edit]) -> Self {
        let mut starts: Vec<usize> = Vec::with_capacity(self.set.rules.len() + 1);
        for (five, owner) in self.owners.iter().enumerate() {
            while starts.len() <= *owner as usize {
                starts.push(five);
            }
        }
        starts.resize(self.set.rules.len() + 1, self.owners.len());
        // What each rule of the new set becomes, and is checked for.
        let mut counts: Vec<usize> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mut fives = Vec::new();
        let mut changed = 0;
        // Edits come from the end, so places before them stay.
        for edit in edits {
            match *edit {
                Edit::Remove(old) => {
                    let range = starts[old]..starts[old] + counts.remove(old);
                    self.checks.remove(old);
                    changed += range.len();
                    if changed > FEW_FIVES {
                        return Self::new(set);
                    }
                    for five in range.rev() {
                        self.classifier.remove(five);
                    }
                }
                Edit::Insert { before, new } => {
                    fives.clear();
                    let checks = expand::expand(&set.rules[new].matches, expand::MOST, &mut fives);
                    changed += fives.len();
                    if changed > FEW_FIVES || self.classifier.len() + fives.len() > expand::MOST_IN_ALL {
                        return Self::new(set);
                    }
                    for five in fives.iter().rev() {
                        self.classifier.insert(starts[before], *five);
                    }
                    counts.insert(before, fives.len());
                    self.checks.insert(before, checks);
                }
            }
        }
        if self.is_worn() {
            return Self::new(set);
        }
        let owners = (0..).zip(&counts).flat_map(|(rule, count)| std::iter::repeat_n(rule, *count)).collect();
        Self::assembled(set, self.classifier, owners, self.checks)
    }

    /// Whether so much was changed since the classifier was built that lookups suffer.
    pub(crate) fn is_worn(&self) -> bool {
        self.classifier.changes() > self.classifier.len() / 8 + FEW_FIVES
    }

    /// The index of the rule of this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let wanted = hash(name);
        let is_it = |(index, hash): (usize, &u64)| *hash == wanted && self.set.rules[index].name == name;
        self.names.iter().enumerate().position(is_it)
    }

    /// Puts a rule at this index.
    pub(crate) fn insert(&mut self, index: usize, rule: Rule) {
        let number = u32::try_from(index).unwrap_or(super::DEFAULT);
        let start = self.owners.partition_point(|owner| *owner < number);
        let mut fives = Vec::new();
        let mut checks = expand::expand(&rule.matches, FIVES, &mut fives);
        for five in fives.iter().rev() {
            self.classifier.insert(start, *five);
        }
        for owner in &mut self.owners[start..] {
            *owner += 1;
        }
        self.owners.splice(start..start, std::iter::repeat_n(number, fives.len()));
        if rule.limit.is_some_and(|limit| limit.over == Over::Next) {
            checks.add(Checks::LIMIT);
        }
        self.all_checks.add(checks);
        self.flags_asked |= rule.matches.flags.iter().fold(0, |all, flags| all | flags.mask);
        self.checks.insert(index, checks);
        self.names.insert(index, hash(&rule.name));
        self.set.rules.insert(index, Arc::new(rule));
    }

    /// Takes the rule at this index out.
    pub(crate) fn remove(&mut self, index: usize) -> Arc<Rule> {
        let number = u32::try_from(index).unwrap_or(super::DEFAULT);
        let start = self.owners.partition_point(|owner| *owner < number);
        let end = self.owners.partition_point(|owner| *owner <= number);
        for five in (start..end).rev() {
            self.classifier.remove(five);
        }
        self.owners.drain(start..end);
        for owner in &mut self.owners[start..] {
            *owner -= 1;
        }
        self.checks.remove(index);
        self.names.remove(index);
        self.set.rules.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cache::Cache;
    use crate::engine::{DEFAULT, Engine};
    use crate::rules::load::{Reading, read};
    use crate::rules::read_change;
    use onvm_classifier::Header;
    use proptest::prelude::*;

    fn set(ports: &[u16]) -> RuleSet {
        let mut text = String::from("rules:\n");
        for (n, port) in ports.iter().enumerate() {
            // Some become two five-field rules, some ask for more than five fields.
            let more = ["", ", protocol: [tcp, udp]", ", vlan: 7"][usize::from(*port) % 3];
            text += &format!("- {{name: r{n}, to-port: {port}-{}{more}, action: allow}}\n", port + 2);
        }
        if ports.is_empty() {
            text = "rules: []".into();
        }
        read("f", &text, &Reading::default()).unwrap().set
    }

    fn first(compiled: &Compiled, port: u16, protocol: u8) -> u32 {
        let header = Header::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 5, port, protocol);
        let facts = crate::engine::tests::facts([10, 0, 0, 1], [10, 0, 0, 2], 5, port, protocol);
        compiled.first(&super::super::Facts { header, ..facts }, 0, 0, |_| true).0
    }

    fn assert_same(changed: &Compiled, built: &Compiled) {
        assert_eq!((&changed.owners, &changed.checks), (&built.owners, &built.checks));
        assert_eq!((&changed.names, changed.all_checks), (&built.names, built.all_checks));
        for port in 0..40 {
            for protocol in [6, 17, 132] {
                assert_eq!(first(changed, port, protocol), first(built, port, protocol), "{port} {protocol}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_set_that_follows_is_as_one_built_anew(
            old in prop::collection::vec(0u16..30, 0..12), new in prop::collection::vec(0u16..30, 0..12),
        ) {
            let followed = Compiled::new(set(&old)).followed_by(set(&new));
            prop_assert!(old.is_empty() || new.is_empty() || followed.classifier.changes() > 0 || old == new);
            assert_same(&followed, &Compiled::new(set(&new)));
        }

        #[test]
        fn single_changes_are_as_a_set_built_anew(
            start in prop::collection::vec(0u16..30, 1..8),
            changes in prop::collection::vec((0u8..3, any::<prop::sample::Index>(), 0u16..30), 1..10),
        ) {
            let mut compiled = Compiled::new(set(&start));
            let mut rules: Vec<Rule> = compiled.set.rules.iter().map(|rule| (**rule).clone()).collect();
            for (kind, at, port) in changes {
                let fresh = || (*set(&[port]).rules[0]).clone();
                let index = at.index(rules.len().max(1));
                if kind != 0 && !rules.is_empty() {
                    rules.remove(index);
                    compiled.remove(index);
                }
                if kind != 1 {
                    let index = index.min(rules.len());
                    rules.insert(index, fresh());
                    compiled.insert(index, fresh());
                }
            }
            let mut built = compiled.set.clone();
            built.rules = rules.into_iter().map(Arc::new).collect();
            let mut built = Compiled::new(built);
            // What nobody asks for any more may still be looked at.
            built.all_checks.add(compiled.all_checks);
            assert_same(&compiled, &built);
        }
    }

    #[test]
    fn many_differences_are_built_anew() {
        let old: Vec<u16> = (0..400).collect();
        let new: Vec<u16> = (400..800).collect();
        let few: Vec<u16> = (1..401).collect();
        assert_eq!(Compiled::new(set(&old)).followed_by(set(&new)).classifier.changes(), 0);
        assert!(Compiled::new(set(&old)).followed_by(set(&few)).classifier.changes() > 0);
    }

    #[test]
    fn messages_change_one_rule() {
        let mut engine = Engine::new(Compiled::new(set(&[1, 4, 7])), Cache::new(16));
        let mut tell = |body: &str| {
            let (change, schedules) = read_change(body, &engine.compiled.set)?;
            engine.change(change, schedules).map(|_| {
                let names = engine.compiled.set.rules.iter().map(|rule| rule.name.as_str());
                names.collect::<Vec<_>>().join(" ")
            })
        };
        let rule = r#"{"name": "x", "to-port": 9, "action": "deny"}"#;
        assert_eq!(tell(&format!(r#"{{"insert": {rule}, "before": "r1"}}"#)).unwrap(), "r0 x r1 r2");
        assert!(tell(&format!(r#"{{"insert": {rule}}}"#)).unwrap_err().contains("\"x\" already"));
        assert_eq!(tell(r#"{"replace": "r0", "with": {"action": "allow"}}"#).unwrap(), "r0 x r1 r2");
        assert_eq!(tell(r#"{"remove": "r0"}"#).unwrap(), "x r1 r2");
        let last = rule.replace("\"x\"", "\"y\"");
        assert_eq!(tell(&format!(r#"{{"insert": {last}, "after": "r2"}}"#)).unwrap(), "x r1 r2 y");
        for (wrong, told) in [
            (r#"{"remove": "r9"}"#, "there is no rule \"r9\""),
            (r#"{"remove": "r1", "before": "r2"}"#, "needed is"),
            (r#"{"insert": {"action": "deny"}}"#, "needs a name"),
            (r#"{"insert": {"name": "z", "acton": "deny"}}"#, "did you mean \"action\"?"),
            ("7", "a mapping (key: value) is needed"),
            ("null", "needed is"),
        ] {
            let error = tell(wrong).unwrap_err();
            assert!(error.contains(told), "{wrong}: {error}");
        }
        assert_eq!(first(&engine.compiled, 9, 6), 0);
        assert_eq!(first(&engine.compiled, 30, 6), DEFAULT);
    }
}
