//! One rule of a rule file.

use onvm_lib::document::{Cursor, Table, Value};

use super::super::icmp::{self, IcmpMatch};
use super::super::ranges::Ranges;
use super::super::rate::{Limit, Over, Per, Rate};
use super::super::schedule::Schedule;
use super::super::{Action, LogAs, Masked, Match, RejectWith, Rule, State, States, WITH_PORTS};
use super::groups::Groups;
use super::times;

const KEYS: [&str; 19] = [
    "name",
    "from",
    "to",
    "protocol",
    "from-port",
    "to-port",
    "icmp",
    "icmpv6",
    "flags",
    "vlan",
    "inner-vlan",
    "in-port",
    "time",
    "state",
    "mark",
    "limit",
    "log",
    "set-mark",
    "action",
];
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Log lines a second of a rule that does not say how many.
const LOG_RATE: &str = "10/s";

/// Reads a rule; none if something is wrong with it, which is then told.
pub(super) fn read<'a>(
    cursor: &Cursor<'a>,
    index: usize,
    groups: &mut Groups<'a>,
    schedules: &mut Vec<Schedule>,
) -> Option<Rule> {
    let table = cursor.table(&KEYS)?;
    let name = match table.get("name") {
        Some(name) => name.text()?.to_string(),
        None => format!("rule {}", index + 1),
    };
    // All are read before the first mistake ends it, so that all mistakes are told at once.
    let action = table.need("action").and_then(|cursor| action(&cursor));
    let matches = conditions(&table, groups, schedules);
    let limit = optional(&table, "limit", limit);
    let log = optional(&table, "log", log);
    let set_mark = optional(&table, "set-mark", masked);
    let rule = Rule {
        name,
        line: cursor.place().line,
        matches: matches?,
        limit: limit?,
        set_mark: set_mark?,
        log: log?.flatten(),
        action: action?,
    };
    if rule.action == Action::Continue
        && let (Some(_), Some(limit)) = (&rule.limit, table.get("limit"))
    {
        limit.error(
            "a rule that continues decides nothing that could be limited: give the limit to one that decides",
        );
        return None;
    }
    if rule.action == Action::Continue && rule.log.is_none() && rule.set_mark.is_none() {
        cursor.warn("a rule that continues, and neither logs nor marks, only counts");
    }
    Some(rule)
}

/// The value of a key that need not be there; the outer none if it is wrong.
fn optional<'a, T>(
    table: &Table<'a>,
    key: &str,
    read: impl FnOnce(&Cursor<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match table.get(key) {
        None => Some(None),
        Some(cursor) => read(&cursor).map(Some),
    }
}

/// `allow`, `deny`, `reject`, `reject with tcp-reset`, `continue`, `service 5`.
pub(super) fn action(cursor: &Cursor<'_>) -> Option<Action> {
    one_of(cursor, &ACTIONS)
}

/// The same after the last rule.
pub(super) fn last_action(cursor: &Cursor<'_>) -> Option<Action> {
    if cursor.text() == Some("continue") {
        cursor.error("after the last rule there is nothing to continue with");
        return None;
    }
    one_of(cursor, &ACTIONS[..ACTIONS.len() - 1])
}

/// Actions that are one word; the last one is only for those that others follow.
const ACTIONS: [(&str, Action); 4] = [
    ("allow", Action::Allow),
    ("deny", Action::Deny),
    ("reject", Action::Reject(RejectWith::Fitting)),
    ("continue", Action::Continue),
];

fn one_of(cursor: &Cursor<'_>, words: &[(&str, Action)]) -> Option<Action> {
    let text = cursor.text()?;
    if let Some(id) = text.strip_prefix("service ") {
        let id = id.trim().parse::<u16>().ok().filter(|id| (1..=4095).contains(id));
        if id.is_none() {
            cursor.error(format!("{text:?} names no service id of 1..=4095"));
        }
        return id.map(Action::Service);
    }
    if let Some(with) = text.strip_prefix("reject with ") {
        let with = with.trim();
        if let Some((_, with)) = RejectWith::NAMES.iter().find(|(name, _)| *name == with) {
            return Some(Action::Reject(*with));
        }
        let names: Vec<&str> = RejectWith::NAMES.iter().map(|(name, _)| *name).collect();
        let all = format!("these are {}", names.join(", "));
        cursor.unknown(with, &names, "something to reject with", &all);
        return None;
    }
    cursor.choice(words)
}

fn conditions<'a>(
    table: &Table<'a>,
    groups: &mut Groups<'a>,
    schedules: &mut Vec<Schedule>,
) -> Option<Match> {
    let mut m = Match::any();
    let mut right = true;
    macro_rules! set {
        ($field:ident, $key:literal, $groups:ident) => {
            if let Some(cursor) = table.get($key) {
                match groups.$groups.set(&cursor) {
                    Some(set) => m.$field = set,
                    None => right = false,
                }
            }
        };
    }
    set!(source, "from", addresses);
    set!(destination, "to", addresses);
    set!(source_ports, "from-port", ports);
    set!(destination_ports, "to-port", ports);
    set!(protocols, "protocol", protocols);
    set!(vlan, "vlan", vlans);
    set!(inner_vlan, "inner-vlan", vlans);
    set!(in_ports, "in-port", in_ports);
    if let Some(cursor) = table.get("state") {
        match states(&cursor) {
            Some(states) => m.states = states,
            None => right = false,
        }
    }
    if let Some(cursor) = table.get("time") {
        m.time = time(&cursor, groups, schedules);
        right &= m.time.is_some();
    }
    if let Some(cursor) = table.get("mark") {
        m.mark = masked(&cursor);
        right &= m.mark.is_some();
    }
    right &= transport(table, &mut m);
    if right && m.is_impossible() {
        table.cursor().error(impossible(&m));
        return None;
    }
    right.then_some(m)
}

fn impossible(m: &Match) -> String {
    let nothing = |what: &str| format!("{what}: nothing is left of what this rule asks for");
    if m.states.0 & States::ALL.0 == 0 {
        return nothing("state");
    }
    if m.icmp.as_ref().is_some_and(IcmpMatch::is_empty) {
        return nothing("the ICMP types");
    }
    if m.protocols.is_empty() {
        return "no protocol has all that this rule asks for (ports, flags, ICMP types)".into();
    }
    format!(
        "no packet can come from {} and go to {}: they are of different families",
        m.source, m.destination
    )
}

/// What asks for a certain transport protocol, and so narrows the protocols of a rule that names none.
fn transport(table: &Table<'_>, m: &mut Match) -> bool {
    let mut right = true;
    if let Some(cursor) = table.get("flags") {
        for member in cursor.one_or_many() {
            match member.parsed() {
                Some(flags) => m.flags.push(flags),
                None => right = false,
            }
        }
        m.protocols = m.protocols.intersection(&Ranges::one(TCP));
    }
    if !(m.source_ports.is_all() && m.destination_ports.is_all()) {
        m.protocols = m.protocols.intersection(&Ranges::of(WITH_PORTS.map(|number| (number, number))));
    }
    let (four, six) = (table.get("icmp"), table.get("icmpv6"));
    if four.is_none() && six.is_none() {
        return right;
    }
    let mut types = |cursor: Option<&Cursor<'_>>, v6| match cursor {
        None => Ranges::none(),
        Some(cursor) => icmp_types(cursor, v6).unwrap_or_else(|| {
            right = false;
            Ranges::none()
        }),
    };
    let matches = IcmpMatch { v4: types(four.as_ref(), false), v6: types(six.as_ref(), true) };
    let mut allowed = Ranges::none();
    if four.is_some() {
        allowed = allowed.union(&Ranges::one(ICMP));
    }
    if six.is_some() {
        allowed = allowed.union(&Ranges::one(ICMPV6));
    }
    m.protocols = m.protocols.intersection(&allowed);
    m.icmp = Some(matches);
    right
}

fn icmp_types(cursor: &Cursor<'_>, v6: bool) -> Option<Ranges<u16>> {
    let (mut with, mut without) = (Ranges::none(), Ranges::none());
    let (mut positive, mut right) = (false, true);
    for member in cursor.one_or_many() {
        for word in member.text()?.split(',').map(str::trim) {
            let negated = word.strip_prefix("not ").or_else(|| word.strip_prefix('!'));
            match icmp::parse(negated.unwrap_or(word).trim(), v6) {
                Ok(some) if negated.is_some() => without = without.union(&some),
                Ok(some) => {
                    with = with.union(&some);
                    positive = true;
                }
                Err(reason) => {
                    member.error(reason);
                    right = false;
                }
            }
        }
    }
    let with = if positive { with } else { Ranges::all() };
    right.then(|| with.without(&without))
}

fn states(cursor: &Cursor<'_>) -> Option<States> {
    let (mut with, mut without, mut right) = (0, 0, true);
    for member in cursor.one_or_many() {
        for word in member.text()?.split(',').map(str::trim) {
            let negated = word.strip_prefix("not ").or_else(|| word.strip_prefix('!'));
            let name = negated.unwrap_or(word).trim();
            let Some((_, state)) = State::NAMES.iter().find(|(known, _)| *known == name) else {
                let names = State::NAMES.map(|(name, _)| name);
                member.unknown(
                    name,
                    &names,
                    "a connection state",
                    &format!("these are {}", names.join(", ")),
                );
                right = false;
                continue;
            };
            let all = if negated.is_some() { &mut without } else { &mut with };
            *all |= state.bit();
        }
    }
    let with = if with == 0 { States::ALL.0 } else { with };
    right.then_some(States(with & !without))
}

fn time<'a>(cursor: &Cursor<'a>, groups: &Groups<'a>, schedules: &mut Vec<Schedule>) -> Option<u16> {
    if matches!(cursor.node().value, Value::Mapping(_)) {
        return times::add(times::read(cursor)?, schedules, cursor);
    }
    let name = cursor.text()?;
    if let Some((_, index)) = groups.times.get(name) {
        // What is wrong with it has been told where it stands; then it has no index.
        return *index;
    }
    let known: Vec<&str> = groups.times.keys().copied().collect();
    cursor.unknown(name, &known, "a group of times", "write a mapping with days, hours and zone");
    None
}

/// `7`, `0x10/0xf0`.
fn masked(cursor: &Cursor<'_>) -> Option<Masked> {
    let text = cursor.text()?;
    let read = parse_masked(text);
    if read.is_none() {
        cursor.error(format!("{text:?} is not a mark like 7 or 0x10/0xf0"));
    }
    read
}

/// A number, or one under a mask, in decimal or hexadecimal digits.
pub(crate) fn parse_masked(text: &str) -> Option<Masked> {
    let number = |text: &str| {
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        hex.map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
    };
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    Some(Masked { value: number(value)?, mask: mask.map_or(Some(u32::MAX), number)? })
}

/// `100/s`, or `{rate: 100/s, burst: 20, per: source, over: next}`.
fn limit(cursor: &Cursor<'_>) -> Option<Limit> {
    if cursor.plain().is_some() {
        return cursor.parsed::<Rate>().map(Limit::of);
    }
    let table = cursor.table(&["rate", "burst", "per", "over"])?;
    let mut limit = Limit::of(table.need("rate")?.parsed()?);
    if let Some(burst) = table.get("burst") {
        limit.burst = burst.fraction(1.0..=1e13)?;
    }
    if let Some(per) = table.get("per") {
        limit.per =
            per.choice(&[("rule", Per::Rule), ("source", Per::Source), ("destination", Per::Destination)])?;
    }
    if let Some(over) = table.get("over") {
        limit.over = over.choice(&[("deny", Over::Deny), ("next", Over::Next)])?;
    }
    Some(limit)
}

/// `true`, a prefix, or `{prefix: text, rate: 10/s}`.
fn log(cursor: &Cursor<'_>) -> Option<Option<LogAs>> {
    let rate: Rate = LOG_RATE.parse().ok()?;
    match &cursor.node().value {
        Value::Scalar { text, quoted: false } if text.eq_ignore_ascii_case("true") => {
            Some(Some(LogAs { prefix: String::new(), limit: Limit::of(rate) }))
        }
        Value::Scalar { text, quoted: false } if text.eq_ignore_ascii_case("false") => Some(None),
        Value::Scalar { text, quoted: false }
            if ["yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word)) =>
        {
            cursor.error(format!("write true or false; as a prefix {text} stands in quotes"));
            None
        }
        Value::Scalar { text, .. } => Some(Some(LogAs { prefix: text.clone(), limit: Limit::of(rate) })),
        _ => {
            let table = cursor.table(&["prefix", "rate"])?;
            let prefix = match table.get("prefix") {
                Some(prefix) => prefix.text()?.to_string(),
                None => String::new(),
            };
            let rate = match table.get("rate") {
                Some(rate) => rate.parsed()?,
                None => rate,
            };
            Some(Some(LogAs { prefix, limit: Limit::of(rate) }))
        }
    }
}
