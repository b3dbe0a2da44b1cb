//! Token buckets: one for each rule with a limit, or one for each address that comes to it.
//!
//! Addresses are bounded: a bucket that has filled up again says what none says, and is forgotten; when there is still
//! no room, newcomers share the rule's own bucket, so that nobody gets past a limit by coming from many addresses.
//!
//! A limit's buckets have a number of their own, which stays with the rule's name when another set comes into force: who
//! is over a limit stays so.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::IpAddr;

use onvm_classifier::Header;

use crate::rules::Rule;
use crate::rules::rate::{Limit, Per};

/// Addresses that are counted apart, over all rules.
const MOST: usize = 65_536;
/// Time between two searches for full buckets.
const SWEEP_NS: u64 = 1_000_000_000;

/// What is left, and when that was so.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at_ns: u64,
}

impl Bucket {
    fn full(limit: &Limit, now_ns: u64) -> Self {
        Self { tokens: limit.burst, at_ns: now_ns }
    }

    #[inline]
    fn fill(&mut self, limit: &Limit, now_ns: u64) {
        // Time of a capture may go back a little; nothing is taken away for that.
        let since = now_ns.saturating_sub(self.at_ns);
        self.tokens = (self.tokens + limit.rate.in_ns(since)).min(limit.burst);
        self.at_ns = self.at_ns.max(now_ns);
    }

    /// A packet longer than the whole burst passes a full bucket, or it could never pass.
    #[inline]
    fn has_room(&self, limit: &Limit, cost: f64) -> bool {
        self.tokens >= cost.min(limit.burst)
    }
}

/// Numbers of limits that may be unused before all are given anew.
const MOST_UNUSED: usize = 100_000;

/// Buckets of all rules.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// Number of a rule's limit; empty if no rule has one.
    of_rule: Vec<Option<u32>>,
    /// Numbers by the rule's name.
    numbers: HashMap<String, u32>,
    /// By number; those that no rule has any more have none.
    limits: Vec<Option<Limit>>,
    /// The rules' own, by number.
    own: Vec<Option<Bucket>>,
    addresses: HashMap<(u32, IpAddr), Bucket>,
    swept_ns: u64,
}

impl Buckets {
    pub(crate) fn new<R: Borrow<Rule>>(rules: &[R], limited: &[u32]) -> Self {
        let mut buckets = Self::default();
        buckets.set_rules(rules, limited);
        buckets
    }

    /// Other rules are in force, of which those at the indices `limited` have limits. Limits that are the same under the same
    /// name go on.
    pub(crate) fn set_rules<R: Borrow<Rule>>(&mut self, rules: &[R], limited: &[u32]) {
        if self.limits.len() > MOST_UNUSED + self.numbers.len() {
            *self = Self::default();
        }
        let known = std::mem::take(&mut self.numbers);
        let before = std::mem::take(&mut self.limits);
        self.limits = vec![None; before.len()];
        self.of_rule.clear();
        for index in limited.iter().map(|index| *index as usize) {
            let Some(rule) = rules.get(index).map(Borrow::borrow) else { continue };
            let Some(limit) = rule.limit else { continue };
            let same = known.get(&rule.name).copied().filter(|n| before[*n as usize] == Some(limit));
            let number = same.unwrap_or_else(|| {
                self.limits.push(None);
                self.own.push(None);
                u32::try_from(self.limits.len() - 1).unwrap_or(u32::MAX)
            });
            self.limits[number as usize] = Some(limit);
            self.numbers.insert(rule.name.clone(), number);
            self.of_rule.resize(index, None);
            self.of_rule.push(Some(number));
        }
    }

    /// A rule was put at this index.
    pub(crate) fn inserted(&mut self, index: usize, rule: &Rule) {
        let number = rule.limit.map(|limit| {
            let known = self.numbers.get(&rule.name).copied();
            let same = known.filter(|number| self.limits[*number as usize] == Some(limit));
            let number = same.unwrap_or_else(|| {
                self.limits.push(Some(limit));
                self.own.push(None);
                u32::try_from(self.limits.len() - 1).unwrap_or(u32::MAX)
            });
            self.numbers.insert(rule.name.clone(), number);
            number
        });
        if number.is_some() && index > self.of_rule.len() {
            self.of_rule.resize(index, None);
        }
        if index <= self.of_rule.len() {
            self.of_rule.insert(index, number);
        }
    }

    /// The rule at this index was taken out. Its limit is known on, for a rule of the same name that may follow.
    pub(crate) fn removed(&mut self, index: usize) {
        if index < self.of_rule.len() {
            self.of_rule.remove(index);
        }
    }

    fn bucket(&mut self, rule: u32, limit: &Limit, header: &Header, now_ns: u64) -> Option<&mut Bucket> {
        let number = self.of_rule.get(rule as usize).copied().flatten()?;
        let address = match limit.per {
            Per::Rule => None,
            Per::Source => Some(header.source()),
            Per::Destination => Some(header.destination()),
        };
        if let Some(address) = address {
            let key = (number, address);
            if self.addresses.len() >= MOST && !self.addresses.contains_key(&key) {
                self.sweep(now_ns);
            }
            if self.addresses.len() < MOST || self.addresses.contains_key(&key) {
                let bucket = self.addresses.entry(key).or_insert_with(|| Bucket::full(limit, now_ns));
                bucket.fill(limit, now_ns);
                return Some(bucket);
            }
        }
        let bucket = self.own.get_mut(number as usize)?.get_or_insert_with(|| Bucket::full(limit, now_ns));
        bucket.fill(limit, now_ns);
        Some(bucket)
    }

    /// Forgets the addresses whose buckets are full again, at most once a second.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.swept_ns) < SWEEP_NS {
            return;
        }
        self.swept_ns = now_ns;
        let limits = &self.limits;
        self.addresses.retain(|(number, _), bucket| {
            let limit = limits.get(*number as usize).copied().flatten();
            limit.is_some_and(|limit| {
                bucket.fill(&limit, now_ns);
                bucket.tokens < limit.burst
            })
        });
    }

    /// Whether a packet would pass.
    pub(crate) fn has_room(
        &mut self,
        rule: u32,
        limit: &Limit,
        header: &Header,
        bytes: usize,
        now_ns: u64,
    ) -> bool {
        let cost = limit.cost(bytes);
        self.bucket(rule, limit, header, now_ns).is_none_or(|bucket| bucket.has_room(limit, cost))
    }

    /// Lets a packet pass if it may; whether it does.
    pub(crate) fn pay(
        &mut self,
        rule: u32,
        limit: &Limit,
        header: &Header,
        bytes: usize,
        now_ns: u64,
    ) -> bool {
        let cost = limit.cost(bytes);
        let Some(bucket) = self.bucket(rule, limit, header, now_ns) else { return true };
        let passes = bucket.has_room(limit, cost);
        if passes {
            bucket.tokens -= cost;
        }
        passes
    }

    /// Addresses that are counted apart at the moment.
    pub(crate) fn addresses(&self) -> usize {
        self.addresses.len()
    }
}

/// One bucket alone, for what is not a rule's: log lines, answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    limit: Limit,
    bucket: Option<Bucket>,
}

impl Single {
    pub(crate) fn new(limit: Limit) -> Self {
        Self { limit, bucket: None }
    }

    /// Whether one more may be; it is counted.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let bucket = self.bucket.get_or_insert_with(|| Bucket::full(&self.limit, now_ns));
        bucket.fill(&self.limit, now_ns);
        let passes = bucket.has_room(&self.limit, 1.0);
        if passes {
            bucket.tokens -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Action;

    const SECOND: u64 = 1_000_000_000;

    fn from(n: u32) -> Header {
        Header::v4(std::net::Ipv4Addr::from_bits(n), [10, 0, 0, 2].into(), 1, 80, 6)
    }

    fn buckets(rate: &str, burst: f64, per: Per) -> (Buckets, Limit) {
        let limit = Limit { burst, per, ..Limit::of(rate.parse().unwrap()) };
        let rule = Rule { limit: Some(limit), ..Rule::new("r".into(), 1, Action::Allow) };
        (Buckets::new(&[rule], &[0]), limit)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut buckets, limit) = buckets("10/s", 5.0, Per::Rule);
        let passed = |buckets: &mut Buckets, at: u64| {
            (0..100).filter(|_| buckets.pay(0, &limit, &from(1), 60, at)).count()
        };
        assert_eq!(passed(&mut buckets, SECOND), 5);
        assert_eq!(passed(&mut buckets, SECOND + SECOND / 10), 1);
        assert_eq!(passed(&mut buckets, 2 * SECOND), 5, "never more than the burst");
        assert_eq!(passed(&mut buckets, SECOND), 0, "a clock that goes back gives nothing");
        assert!(!buckets.has_room(0, &limit, &from(1), 60, 2 * SECOND));
        assert!(buckets.has_room(0, &limit, &from(1), 60, 3 * SECOND));
    }

    #[test]
    fn bits_are_counted_by_length() {
        let (mut buckets, limit) = buckets("8 kbit/s", 8000.0, Per::Rule);
        let passed = |buckets: &mut Buckets, at| {
            (0..100).filter(|_| buckets.pay(0, &limit, &from(1), 100, at)).count()
        };
        assert_eq!(passed(&mut buckets, SECOND), 10);
        assert_eq!(passed(&mut buckets, 2 * SECOND), 10);
        assert!(buckets.pay(0, &limit, &from(1), 9000, 4 * SECOND), "longer than the burst, but it is full");
    }

    #[test]
    fn limits_go_on_under_their_names() {
        let limit = |rate: &str| Some(Limit { burst: 1.0, ..Limit::of(rate.parse().unwrap()) });
        let rule =
            |name: &str, rate: &str| Rule { limit: limit(rate), ..Rule::new(name.into(), 1, Action::Allow) };
        let plain = Rule::new("plain".into(), 1, Action::Allow);
        let mut buckets = Buckets::new(&[rule("a", "1/s"), rule("b", "1/s")], &[0, 1]);
        let passes = |buckets: &mut Buckets, index: u32, rate: &str| {
            buckets.pay(index, &limit(rate).unwrap(), &from(1), 60, SECOND)
        };
        assert!(passes(&mut buckets, 0, "1/s") && passes(&mut buckets, 1, "1/s"));
        buckets.set_rules(&[plain.clone(), rule("b", "1/s"), plain, rule("a", "2/s")], &[1, 3]);
        assert!(!passes(&mut buckets, 1, "1/s"), "it is still over its limit");
        assert!(passes(&mut buckets, 3, "2/s"), "another limit begins full");
        for n in 0..10 {
            buckets.set_rules(&[rule(&format!("r{n}"), "1/s")], &[0]);
            assert!(passes(&mut buckets, 0, "1/s"));
        }
    }

    #[test]
    fn sources_are_counted_apart_and_bounded() {
        let (mut buckets, limit) = buckets("1/s", 1.0, Per::Source);
        let most = u32::try_from(MOST).unwrap();
        let first = (0..most).filter(|n| buckets.pay(0, &limit, &from(*n), 60, SECOND)).count();
        assert_eq!((first, buckets.addresses()), (MOST, MOST));
        // All others share one bucket.
        let rest = (most..most + 1000).filter(|n| buckets.pay(0, &limit, &from(*n), 60, SECOND)).count();
        assert_eq!((rest, buckets.addresses()), (1, MOST));
        assert!(buckets.pay(0, &limit, &from(most + 7), 60, 10 * SECOND));
        assert_eq!(buckets.addresses(), 1, "full buckets are forgotten");
    }
}
