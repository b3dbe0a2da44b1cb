//! Lists of addresses and ports: `[a,!b,[c,$D]]`, as sets of ranges.
//!
//! Of a list, what stands without `!` is joined, what stands with it is taken away; a list of negations only is taken
//! away from everything of its kind: `!10.0.0.0/8` is the other addresses of IPv4, and none of IPv6, as in Suricata
//! (whoever has IPv6 at home says so in `HOME_NET`). A set is kept as sorted ranges without overlap, so that a test is a binary search whatever the
//! list was.

use std::net::IpAddr;

use super::refusal::Fault;
use super::variables::Variables;

/// Lists in lists and variables in variables, deeper than anyone needs.
const DEEPEST: usize = 32;
/// Ranges that a list may have.
const MOST: usize = 1 << 20;

/// Sorted ranges, both ends included, without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    pub(crate) fn all(last: u128) -> Self {
        Ranges(vec![(0, last)])
    }

    /// Whether `value` is in one of the ranges.
    #[must_use]
    pub fn contains(&self, value: u128) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= value);
        after > 0 && self.0[after - 1].1 >= value
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().copied()
    }

    fn normalise(&mut self) {
        self.0.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(self.0.len());
        for (first, last) in self.0.drain(..) {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        self.0 = joined;
    }

    /// What is in `self` and not in `other`; both normalised.
    fn without(&self, other: &Ranges) -> Ranges {
        let mut rest = Vec::new();
        let mut taken = 0;
        for &(mut first, last) in &self.0 {
            while taken < other.0.len() && other.0[taken].1 < first {
                taken += 1;
            }
            let mut next = taken;
            let mut open = true;
            while next < other.0.len() && other.0[next].0 <= last {
                let (from, to) = other.0[next];
                if from > first {
                    rest.push((first, from - 1));
                }
                if to >= last {
                    open = false;
                    break;
                }
                first = to + 1;
                next += 1;
            }
            if open {
                rest.push((first, last));
            }
        }
        Ranges(rest)
    }
}

/// What a list of the kind is made of.
trait Kind {
    const FIELD: &'static str;
    /// How many separate spaces there are (IPv4 and IPv6 are two).
    fn everything() -> [Ranges; 2];
    fn item(text: &str, into: &mut [Ranges; 2]) -> Result<(), Fault>;
    fn variable<'a>(name: &str, variables: &'a Variables) -> Result<&'a str, Fault>;
}

/// The parts of a list, split at commas that are not within brackets.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut from, mut parts) = (0usize, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (depth == 0).then_some(parts)
}

/// The set that `text` stands for and whether a `!` stands in it.
fn parse<K: Kind>(text: &str, variables: &Variables, depth: usize) -> Result<([Ranges; 2], bool), Fault> {
    let text = text.trim();
    if depth > DEEPEST {
        return Err(Fault::new(K::FIELD, format!("more than {DEEPEST} lists or variables in each other")));
    }
    // The outermost list may go without brackets.
    if let Some(parts) = split(text).filter(|parts| parts.len() > 1) {
        return join::<K>(text, &parts, variables, depth);
    }
    if let Some(rest) = text.strip_prefix('!') {
        let (inner, _) = parse::<K>(rest, variables, depth + 1)?;
        let [a, b] = [0, 1].map(|kind| all_if_named::<K>(kind, &inner[kind]));
        let set = [a.without(&inner[0]), b.without(&inner[1])];
        return if set.iter().all(Ranges::is_empty) {
            Err(Fault::new(K::FIELD, format!("`{text}` matches nothing")))
        } else {
            Ok((set, true))
        };
    }
    if let Some(name) = text.strip_prefix('$') {
        return parse::<K>(K::variable(name, variables)?, variables, depth + 1);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let closed = inner.strip_suffix(']').and_then(split);
        let parts =
            closed.ok_or_else(|| Fault::new(K::FIELD, format!("brackets of `{text}` do not pair")))?;
        return join::<K>(text, &parts, variables, depth);
    }
    let mut set = [Ranges::default(), Ranges::default()];
    if text.eq_ignore_ascii_case("any") {
        set = K::everything();
    } else {
        K::item(text, &mut set)?;
    }
    Ok((set, false))
}

/// Everything of a kind that a negation names anything of.
fn all_if_named<K: Kind>(kind: usize, named: &Ranges) -> Ranges {
    if named.is_empty() { Ranges::default() } else { K::everything()[kind].clone() }
}

fn join<K: Kind>(
    text: &str,
    parts: &[&str],
    variables: &Variables,
    depth: usize,
) -> Result<([Ranges; 2], bool), Fault> {
    let (mut with, mut without) =
        ([Ranges::default(), Ranges::default()], [Ranges::default(), Ranges::default()]);
    let mut negated = false;
    for part in parts {
        let part = part.trim();
        if part.is_empty() {
            return Err(Fault::new(K::FIELD, format!("`{text}` has an empty part")));
        }
        let (inner, into) = match part.strip_prefix('!') {
            Some(rest) => (parse::<K>(rest, variables, depth + 1)?.0, &mut without),
            None => {
                let (inner, inside) = parse::<K>(part, variables, depth + 1)?;
                negated |= inside;
                (inner, &mut with)
            }
        };
        negated |= part.starts_with('!');
        for (set, more) in into.iter_mut().zip(inner) {
            set.0.extend(more.0);
            if set.0.len() > MOST {
                return Err(Fault::new(K::FIELD, format!("more than {MOST} ranges in a list")));
            }
        }
    }
    let mut result = with;
    for (kind, (set, less)) in result.iter_mut().zip(&mut without).enumerate() {
        set.normalise();
        less.normalise();
        if set.is_empty() {
            *set = all_if_named::<K>(kind, less);
        }
        *set = set.without(less);
    }
    if result.iter().all(Ranges::is_empty) {
        return Err(Fault::new(K::FIELD, format!("`{text}` matches nothing")));
    }
    Ok((result, negated))
}

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub(crate) v4: Ranges,
    pub(crate) v6: Ranges,
    any: bool,
    negated: bool,
}

struct AddressKind;

impl Kind for AddressKind {
    const FIELD: &'static str = "address";

    fn everything() -> [Ranges; 2] {
        [Ranges::all(u128::from(u32::MAX)), Ranges::all(u128::MAX)]
    }

    fn item(text: &str, into: &mut [Ranges; 2]) -> Result<(), Fault> {
        let wrong = |why: &str| Fault::new(Self::FIELD, format!("`{text}` {why}"));
        let number = |text: &str| match text.trim().parse::<IpAddr>() {
            Ok(IpAddr::V4(a)) => Ok((0, u128::from(u32::from(a)))),
            Ok(IpAddr::V6(a)) => Ok((1, u128::from(a))),
            Err(_) => Err(wrong("is not an address, a network (a/n), a range (a-b) or a variable ($NAME)")),
        };
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (number(first)?, number(last)?);
            if first.0 != last.0 || first.1 > last.1 {
                return Err(wrong("is not a range from a lower to a higher address"));
            }
            into[first.0].0.push((first.1, last.1));
            return Ok(());
        }
        let Some((base, prefix)) = text.split_once('/') else {
            let (space, address) = number(text)?;
            into[space].0.push((address, address));
            return Ok(());
        };
        let (space, address) = number(base)?;
        let bits: u32 = if space == 0 { 32 } else { 128 };
        let length = match (prefix.parse::<u32>(), prefix.parse::<std::net::Ipv4Addr>()) {
            (Ok(length), _) if length <= bits => length,
            (_, Ok(mask))
                if space == 0 && u32::from(mask).leading_ones() + u32::from(mask).trailing_zeros() >= 32 =>
            {
                u32::from(mask).leading_ones()
            }
            _ => return Err(wrong(&format!("has a prefix length that is not in 0..={bits}"))),
        };
        let hosts = bits - length;
        let low = if hosts == 0 { 0 } else { u128::MAX >> (128 - hosts) };
        into[space].0.push((address & !low, address | low));
        Ok(())
    }

    fn variable<'a>(name: &str, variables: &'a Variables) -> Result<&'a str, Fault> {
        variables.addresses(name)
    }
}

impl Addresses {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// What is no address, an unknown variable, brackets that do not pair, or a list that matches nothing.
    pub fn parse(text: &str, variables: &Variables) -> Result<Self, Fault> {
        let ([mut v4, mut v6], negated) = parse::<AddressKind>(text, variables, 0)?;
        v4.normalise();
        v6.normalise();
        let any = [v4.clone(), v6.clone()] == AddressKind::everything();
        Ok(Addresses { v4, v6, any, negated })
    }

    /// Every address.
    #[must_use]
    pub fn any() -> Self {
        let [v4, v6] = AddressKind::everything();
        Addresses { v4, v6, any: true, negated: false }
    }

    /// Whether every address is in it.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Whether a `!` stands in the list.
    #[must_use]
    pub fn has_negation(&self) -> bool {
        self.negated
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.any
            || match address {
                IpAddr::V4(a) => self.v4.contains(u128::from(u32::from(a))),
                IpAddr::V6(a) => self.v6.contains(u128::from(a)),
            }
    }
}

/// A set of TCP, UDP or SCTP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    set: Ranges,
    any: bool,
}

struct PortKind;

impl Kind for PortKind {
    const FIELD: &'static str = "port";

    fn everything() -> [Ranges; 2] {
        [Ranges::all(u128::from(u16::MAX)), Ranges::default()]
    }

    fn item(text: &str, into: &mut [Ranges; 2]) -> Result<(), Fault> {
        let wrong =
            || Fault::new(Self::FIELD, format!("`{text}` is not a port or a range (a:b) in 0..=65535"));
        let number = |text: &str, absent: u16| match text.trim() {
            "" => Ok(absent),
            digits => digits.parse::<u16>().map_err(|_| wrong()),
        };
        let (first, last) = match text.split_once(':') {
            Some((first, last)) if !(first.is_empty() && last.is_empty()) => {
                (number(first, 0)?, number(last, u16::MAX)?)
            }
            Some(_) => return Err(wrong()),
            None => {
                let port = text.parse::<u16>().map_err(|_| wrong())?;
                (port, port)
            }
        };
        if first > last {
            return Err(wrong());
        }
        into[0].0.push((u128::from(first), u128::from(last)));
        Ok(())
    }

    fn variable<'a>(name: &str, variables: &'a Variables) -> Result<&'a str, Fault> {
        variables.ports(name)
    }
}

impl Ports {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// What is no port, an unknown variable, brackets that do not pair, or a list that matches nothing.
    pub fn parse(text: &str, variables: &Variables) -> Result<Self, Fault> {
        let ([mut set, _], _) = parse::<PortKind>(text, variables, 0)?;
        set.normalise();
        let any = set == Ranges::all(u128::from(u16::MAX));
        Ok(Ports { set, any })
    }

    /// Every port, and also packets without ports.
    #[must_use]
    pub fn any() -> Self {
        Ports { set: Ranges::all(u128::from(u16::MAX)), any: true }
    }

    /// Whether every port is in it.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Whether `port` is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.any || self.set.contains(u128::from(port))
    }

    /// The ports one by one when there are at most `most`.
    pub(crate) fn few(&self, most: u128) -> Option<Vec<u16>> {
        let count: u128 = self.set.iter().map(|(first, last)| last - first + 1).sum();
        let narrow = |n: u128| u16::try_from(n).unwrap_or(u16::MAX);
        (count <= most).then(|| self.set.iter().flat_map(|(a, b)| (a..=b).map(narrow)).collect())
    }
}
