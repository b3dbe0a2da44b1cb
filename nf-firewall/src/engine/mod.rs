//! Rules compiled, and the decision on a packet.
//!
//! ```text
//! facts ─▶ cache ──hit──────────────────────────────┐
//!            │ miss                                 ▼
//!            └▶ classifier: lowest five-field rule ─▶ rule ─▶ limit ─▶ action
//!                 that the further conditions take
//! ```
//! | room | what is in it |
//! |---|---|
//! | `expand` | rules as five-field rules of the classifier |
//! | `checks` | the conditions beside the five fields |
//! | `cache` | decisions of flows |
//! | `buckets` | token buckets, per rule or per address |
//! | `change`, `diff` | sets that differ in a few rules from the one before |
//! | `ahead` | the packets of a burst that the cache does not know, looked up together |

mod ahead;
pub(crate) mod buckets;
pub(crate) mod cache;
mod change;
pub(crate) mod checks;
mod diff;
pub(crate) mod expand;

use std::collections::HashMap;
use std::sync::Arc;

use onvm_classifier::{Classifier, NONE};

use crate::rules::rate::Over;
use crate::rules::schedule::Schedule;
use crate::rules::{Action, At, Change, Format, MOST_RULES, Rule, RuleSet, State};
use ahead::Ahead;
use buckets::Buckets;
use cache::Cache;
use checks::{Checks, Facts};
use expand::Expanded;

/// In place of a rule's index: no rule, but the default policy.
pub(crate) const DEFAULT: u32 = u32::MAX;

/// A set of rules, ready to decide.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) set: RuleSet,
    classifier: Classifier,
    /// For each five-field rule the rule that it is part of.
    owners: Vec<u32>,
    /// For each rule what the classifier does not look at.
    checks: Vec<Checks>,
    /// All of them together.
    all_checks: Checks,
    /// TCP flags that any rule asks for.
    flags_asked: u16,
    /// Hashes of the rules' names.
    names: Vec<u64>,
    /// What takes a look at each rule, found beside the packets; changes of single rules are not in it.
    pub(crate) loaded: Arc<Loaded>,
}

/// What is known of a set since it was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Indices of rules with a limit, and of those that log.
    pub(crate) limited: Vec<u32>,
    pub(crate) logged: Vec<u32>,
    /// A rule asks for the state of connections.
    pub(crate) asks_for_states: bool,
    /// Indices of rules by the hashes of their names.
    places: HashMap<u64, u32>,
}

impl Loaded {
    fn new(set: &RuleSet, names: &[u64]) -> Self {
        let which = |is_it: &dyn Fn(&Rule) -> bool| {
            (0..).zip(&set.rules).filter(|(_, rule)| is_it(rule)).map(|(index, _)| index).collect()
        };
        Self {
            limited: which(&|rule| rule.limit.is_some()),
            logged: which(&|rule| rule.log.is_some()),
            asks_for_states: set.asks_for_states(),
            places: names.iter().copied().zip(0..).collect(),
        }
    }
}

impl Compiled {
    pub(crate) fn new(set: RuleSet) -> Self {
        let Expanded { fives, owners, checks } = expand::expand_all(&set.rules, expand::MOST_IN_ALL);
        let classifier = Classifier::build(&fives);
        Self::assembled(set, classifier, owners, checks)
    }

    /// Of a classifier for these rules; `checks` are those that the five fields leave.
    fn assembled(set: RuleSet, classifier: Classifier, owners: Vec<u32>, mut checks: Vec<Checks>) -> Self {
        let (mut all_checks, mut flags_asked) = (Checks::default(), 0);
        for (rule, check) in set.rules.iter().zip(&mut checks) {
            check.set(Checks::LIMIT, rule.limit.is_some_and(|limit| limit.over == Over::Next));
            all_checks.add(*check);
            flags_asked |= rule.matches.flags.iter().fold(0, |all, flags| all | flags.mask);
        }
        let names: Vec<u64> = set.rules.iter().map(|rule| change::hash(&rule.name)).collect();
        let loaded = Arc::new(Loaded::new(&set, &names));
        Self { set, classifier, owners, checks, all_checks, flags_asked, names, loaded }
    }

    /// Number of five-field rules.
    pub(crate) fn five_field_rules(&self) -> usize {
        self.owners.len()
    }

    /// Where the rule at this index of another set is in this one, which was not changed since it was read.
    pub(crate) fn same_rule(&self, other: &Self, index: usize) -> Option<usize> {
        let place = *self.loaded.places.get(other.names.get(index)?)? as usize;
        (self.set.rules.get(place)?.name == other.set.rules.get(index)?.name).then_some(place)
    }

    pub(crate) fn rule(&self, index: u32) -> Option<&Rule> {
        self.set.rules.get(index as usize).map(Arc::as_ref)
    }

    /// The action of a rule, or of the default policy.
    pub(crate) fn action(&self, index: u32) -> Action {
        self.rule(index).map_or(self.set.default, |rule| rule.action)
    }

    /// A bit for each schedule that holds at this time.
    pub(crate) fn times(&self, now_ns: u64) -> u64 {
        let holding = |(index, schedule): (usize, &crate::rules::schedule::Schedule)| {
            u64::from(schedule.holds(now_ns)) << index
        };
        self.set.schedules.iter().enumerate().map(holding).fold(0, |all, bit| all | bit)
    }

    /// The first rule from `from` on that a packet matches, whatever its limit says, and whether that holds for all
    /// packets of which the cache knows no difference.
    #[inline]
    pub(crate) fn first(
        &self,
        facts: &Facts,
        times: u64,
        from: u32,
        mut has_room: impl FnMut(u32) -> bool,
    ) -> (u32, bool) {
        if from == 0 && self.all_checks.is_empty() {
            let found = self.classifier.classify(&facts.header);
            return (found.map_or(DEFAULT, |five| self.owner(five)), true);
        }
        let mut lasting = true;
        let found = self.classifier.classify_if(&facts.header, |five| {
            let owner = self.owner(five);
            if owner < from {
                return false;
            }
            let (Some(checks), Some(rule)) = (self.checks.get(owner as usize), self.rule(owner)) else {
                return false;
            };
            if checks.is_empty() {
                return true;
            }
            if checks.has(Checks::MARK) {
                lasting = false;
            }
            if !checks.hold(&rule.matches, facts, times) {
                return false;
            }
            if checks.has(Checks::LIMIT) {
                lasting = false;
                return has_room(owner);
            }
            true
        });
        (found.map_or(DEFAULT, |five| self.owner(five)), lasting)
    }

    /// Tells all rules whose five fields a header matches, or that are checked more closely afterwards; in no order.
    pub(crate) fn matching(&self, header: &onvm_classifier::Header, mut each: impl FnMut(u32)) {
        let _ = self.classifier.classify_if(header, |five| {
            each(self.owner(five));
            false
        });
    }

    /// As [`first`](Self::first) from the first rule on, given the first five-field rule that the packet matches; none
    /// if that does not tell.
    #[inline]
    fn first_of(&self, five: u32, facts: &Facts, times: u64) -> Option<(u32, bool)> {
        if five == NONE {
            return Some((DEFAULT, true));
        }
        let owner = self.owner(five);
        let (checks, rule) = (self.checks.get(owner as usize)?, self.rule(owner)?);
        let depends = checks.has(Checks::MARK) || checks.has(Checks::LIMIT);
        (!depends && checks.hold(&rule.matches, facts, times)).then_some((owner, true))
    }

    fn owner(&self, five: u32) -> u32 {
        self.owners.get(five as usize).copied().unwrap_or(DEFAULT)
    }

    /// What of a packet's facts, beside the five fields, rules tell apart: the cache's further key.
    #[inline]
    fn further(&self, facts: &Facts) -> u128 {
        let checks = self.all_checks;
        if checks.is_empty() {
            return 0;
        }
        let part = |check: Checks, value: u16| if checks.has(check) { u128::from(value) } else { 0 };
        part(Checks::FLAGS, facts.flags & self.flags_asked)
            | part(Checks::ICMP, facts.icmp) << 16
            | part(Checks::VLAN, facts.vlan) << 32
            | part(Checks::INNER_VLAN, facts.inner_vlan) << 48
            | part(Checks::IN_PORT, u16::from(facts.in_port)) << 64
            | part(Checks::STATE, facts.state as u16) << 80
    }
}

/// What a change did to the list of rules: at this index one went, and one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) at: usize,
    pub(crate) removed: bool,
    pub(crate) inserted: bool,
}

/// A compiled set at work: with its cache and its buckets.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) compiled: Compiled,
    pub(crate) cache: Cache,
    pub(crate) buckets: Buckets,
    ahead: Ahead,
    /// Schedules that hold, and the second for which that was found out.
    times: u64,
    second: u64,
}

impl Engine {
    pub(crate) fn new(compiled: Compiled, cache: Cache) -> Self {
        let buckets = Buckets::new(&compiled.set.rules, &compiled.loaded.limited);
        Self { compiled, cache, buckets, ahead: Ahead::default(), times: 0, second: u64::MAX }
    }

    /// Puts another set in force; the one before is given back to be freed elsewhere.
    pub(crate) fn replace(&mut self, compiled: Compiled) -> Compiled {
        self.buckets.set_rules(&compiled.set.rules, &compiled.loaded.limited);
        self.cache.forget();
        self.second = u64::MAX;
        std::mem::replace(&mut self.compiled, compiled)
    }

    /// Changes a rule of the set in force; which indices are concerned.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub(crate) fn change(&mut self, change: Change, schedules: Vec<Schedule>) -> Result<Changed, String> {
        let compiled = &mut self.compiled;
        if compiled.set.format == Format::Iptables {
            return Err("rules of chains lean on each other: change the file".into());
        }
        if compiled.is_worn() {
            return Err(
                "so much was changed that lookups suffer: put the changes into the file and reload".into()
            );
        }
        let find = |name: &str| compiled.find(name).ok_or_else(|| format!("there is no rule {name:?}"));
        let (at, old, new) = match change {
            Change::Insert(At::End, rule) => (compiled.set.rules.len(), false, Some(rule)),
            Change::Insert(At::Before(name), rule) => (find(&name)?, false, Some(rule)),
            Change::Insert(At::After(name), rule) => (find(&name)? + 1, false, Some(rule)),
            Change::Replace(name, rule) => (find(&name)?, true, Some(rule)),
            Change::Remove(name) => (find(&name)?, true, None),
        };
        if !old && compiled.set.rules.len() >= MOST_RULES {
            return Err(format!("there are {MOST_RULES} rules, the most that there may be"));
        }
        if let Some(rule) = &new
            && compiled.find(&rule.name).is_some_and(|other| !old || other != at)
        {
            return Err(format!("there is a rule {:?} already", rule.name));
        }
        if old {
            compiled.remove(at);
            self.buckets.removed(at);
        }
        let inserted = new.is_some();
        if let Some(rule) = new {
            self.buckets.inserted(at, &rule);
            compiled.insert(at, rule);
        }
        compiled.set.schedules = schedules;
        self.cache.forget();
        self.second = u64::MAX;
        Ok(Changed { at, removed: old, inserted })
    }

    /// A burst of this time begins: schedules are looked at once a second.
    pub(crate) fn at(&mut self, now_ns: u64) {
        const SECOND_NS: u64 = 1_000_000_000;
        if now_ns / SECOND_NS == self.second || self.compiled.set.schedules.is_empty() {
            return;
        }
        self.second = now_ns / SECOND_NS;
        let times = self.compiled.times(now_ns);
        if times != self.times {
            self.times = times;
            self.cache.forget();
        }
    }

    /// A burst of packets with these facts comes; none for what rules are not asked about. The state of connections
    /// need not be known yet. What the cache does not know is looked up at once for all of them.
    pub(crate) fn foresee(&mut self, burst: impl ExactSizeIterator<Item = Option<Facts>>) {
        let Self { compiled, cache, ahead, .. } = self;
        ahead.begin(burst.len());
        let states: &[State] = if compiled.all_checks.has(Checks::STATE) {
            &[State::Established, State::New]
        } else {
            &[State::New]
        };
        for (place, facts) in burst.enumerate() {
            let Some(facts) = facts else { continue };
            let lacks = |state: &State| {
                cache.lacks(&facts.header, compiled.further(&Facts { state: *state, ..facts }))
            };
            if states.iter().all(lacks) {
                ahead.ask(place, facts.header);
            }
        }
        ahead.look(&compiled.classifier);
    }

    /// The rules that the packet at a place of the foreseen burst matches, in order, up to the one that decides; each
    /// is told to `matched`, which may set the packet's mark. Returns the index of the one that decides, or [`DEFAULT`].
    #[inline]
    pub(crate) fn decide(
        &mut self,
        place: usize,
        facts: &mut Facts,
        bytes: usize,
        now_ns: u64,
        mut matched: impl FnMut(u32, &Rule, &mut Facts),
    ) -> u32 {
        let mut known_five = self.ahead.of(place);
        let further = self.compiled.further(facts);
        if let Some(known) = self.cache.find(&facts.header, further) {
            if let Some(rule) = self.compiled.rule(known) {
                matched(known, rule, facts);
            }
            return known;
        }
        let header = facts.header;
        let mut from = 0;
        let mut lasting = true;
        loop {
            let Self { compiled, buckets, times, .. } = self;
            let ahead = known_five.take().and_then(|five| compiled.first_of(five, facts, *times));
            let (index, same) = ahead.unwrap_or_else(|| {
                compiled.first(facts, *times, from, |owner| {
                    let limit = compiled.rule(owner).and_then(|rule| rule.limit);
                    limit.is_none_or(|limit| buckets.has_room(owner, &limit, &header, bytes, now_ns))
                })
            });
            lasting &= same;
            let Some(rule) = compiled.rule(index) else { break };
            if let Some(limit) = rule.limit.filter(|limit| limit.over == Over::Next) {
                buckets.pay(index, &limit, &header, bytes, now_ns);
            }
            matched(index, rule, facts);
            if rule.action.is_final() {
                if lasting {
                    self.cache.insert(header, further, index);
                }
                return index;
            }
            lasting = false;
            from = if let Action::Skip(to) = rule.action { to.max(index + 1) } else { index + 1 };
        }
        if lasting {
            self.cache.insert(header, further, DEFAULT);
        }
        DEFAULT
    }

    /// Whether a packet may pass the limit of the rule that decided on it; it takes its part.
    #[inline]
    pub(crate) fn pass_limit(&mut self, index: u32, facts: &Facts, bytes: usize, now_ns: u64) -> bool {
        match self.compiled.rule(index).and_then(|rule| rule.limit).filter(|limit| limit.over == Over::Deny) {
            Some(limit) => self.buckets.pay(index, &limit, &facts.header, bytes, now_ns),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
