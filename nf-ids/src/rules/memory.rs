//! Keywords of flows and of what rules remember: `flow`, bits, counters, thresholds.

use std::sync::Arc;

use super::builder::Builder;
use super::refusal::Fault;
use super::rule::Way;
use super::state::{
    BitCommand, CounterCommand, CounterValue, Filter, Keeper, StateTest, Threshold, ThresholdKind, Track,
    UniqueOn,
};

/// Seconds that a bit of `hostbits` lasts if the rule does not say; Suricata's.
const HOSTBITS_SECONDS: u32 = 300;

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] = &[
    "flow",
    "flowbits",
    "flowint",
    "flowvar",
    "pktvar",
    "xbits",
    "hostbits",
    "threshold",
    "detection_filter",
    "tag",
];

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Result<(), Fault> {
    let value = value.ok_or_else(|| Fault::new(word, "has no value"))?;
    if matches!(word, "flowvar" | "pktvar") {
        return variable(b, word, value);
    }
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    match word {
        "flow" => flow(b, value),
        "flowbits" => flowbits(b, value),
        "flowint" => flowint(b, value),
        "xbits" => xbits(b, value),
        "hostbits" => hostbits(b, value),
        "threshold" => {
            b.once("threshold or detection_filter")?;
            b.rule.threshold = Some(threshold(value)?);
            Ok(())
        }
        "detection_filter" => {
            b.once("threshold or detection_filter")?;
            b.rule.detection_filter = Some(filter(value)?);
            Ok(())
        }
        _ => tag(value),
    }
}

fn flow(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "flow";
    const KNOWN: [&str; 13] = [
        "established",
        "not_established",
        "stateless",
        "to_server",
        "to_client",
        "from_server",
        "from_client",
        "only_stream",
        "no_stream",
        "only_frag",
        "no_frag",
        "toserver",
        "toclient",
    ];
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let flow = &mut b.rule.flow;
        let before = *flow;
        match part.to_ascii_lowercase().as_str() {
            "established" => flow.established = Some(true),
            "not_established" => flow.established = Some(false),
            "stateless" => flow.stateless = true,
            "to_server" | "toserver" | "from_client" => flow.way = Some(Way::ToServer),
            "to_client" | "toclient" | "from_server" => flow.way = Some(Way::ToClient),
            "only_stream" => flow.only_stream = true,
            "no_stream" => flow.no_stream = true,
            "only_frag" => flow.fragment = Some(true),
            "no_frag" => flow.fragment = Some(false),
            other => return Err(Fault::new(WORD, format!("`{other}` is not known")).or_nearest(other, KNOWN)),
        }
        let contradicts = before.way.is_some() && before.way != flow.way
            || before.established.is_some() && before.established != flow.established
            || flow.stateless && flow.established.is_some()
            || flow.only_stream && flow.no_stream
            || before.fragment.is_some() && before.fragment != flow.fragment;
        if contradicts {
            return Err(Fault::new(WORD, format!("`{part}` contradicts what stands before it in `{value}`")));
        }
        if before == *flow {
            return Err(Fault::new(WORD, format!("`{part}` is said twice")));
        }
    }
    Ok(())
}

/// `flowvar:NAME,"text"`.
fn variable(b: &mut Builder, word: &str, value: &str) -> Result<(), Fault> {
    let wrong = || Fault::new(word, format!("`{value}` is not NAME,\"TEXT\""));
    let (name, text) = value.split_once(',').ok_or_else(wrong)?;
    let name = bit_name(word, name)?;
    let (text, negated) = super::option::unquote(word, text.trim())?;
    if negated {
        return Err(Fault::new(word, "cannot be negated"));
    }
    let bytes = super::option::pattern(word, text)?;
    b.rule.state.push(StateTest::Variable { of_flow: word == "flowvar", name, bytes });
    Ok(())
}

fn command(word: &str, text: &str) -> Result<BitCommand, Fault> {
    match text {
        "set" => Ok(BitCommand::Set),
        "unset" => Ok(BitCommand::Unset),
        "toggle" => Ok(BitCommand::Toggle),
        "isset" => Ok(BitCommand::IsSet),
        "isnotset" => Ok(BitCommand::IsNotSet),
        other => Err(Fault::new(word, format!("`{other}` is no command"))
            .or_nearest(other, ["set", "unset", "toggle", "isset", "isnotset", "noalert"])),
    }
}

fn bit_name(word: &str, text: &str) -> Result<Arc<str>, Fault> {
    let text = text.trim();
    if text.is_empty() || text.len() > 256 || text.contains(char::is_whitespace) {
        return Err(Fault::new(
            word,
            format!("`{text}` is not a name of 1 to 256 characters without spaces"),
        ));
    }
    Ok(Arc::from(text))
}

fn flowbits(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "flowbits";
    if value == "noalert" {
        b.rule.noalert = true;
        return Ok(());
    }
    let (text, names) =
        value.split_once(',').ok_or_else(|| Fault::new(WORD, format!("`{value}` is not COMMAND,NAME")))?;
    let command = command(WORD, text.trim())?;
    let asks = matches!(command, BitCommand::IsSet | BitCommand::IsNotSet);
    let names: Result<Vec<_>, _> = names.split('|').map(|n| bit_name(WORD, n)).collect();
    let names = names?;
    if names.len() > 1 && !asks {
        return Err(Fault::new(WORD, "`|` is for `isset` and `isnotset` only"));
    }
    b.rule.state.push(StateTest::Bit(Keeper::Flow, command, names, 0));
    Ok(())
}

fn flowint(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "flowint";
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let name = bit_name(WORD, parts[0])?;
    let operand = |text: &str| match text.parse::<u32>() {
        Ok(n) => Ok(CounterValue::Is(n)),
        Err(_) if text.bytes().all(|c| c.is_ascii_digit()) => {
            Err(Fault::new(WORD, format!("{text} is not in 0..=4294967295")))
        }
        Err(_) => bit_name(WORD, text).map(CounterValue::Of),
    };
    let command = match parts[1..] {
        ["isset"] => CounterCommand::IsSet(true),
        ["isnotset" | "notset"] => CounterCommand::IsSet(false),
        [operator, right] => {
            let right = operand(right)?;
            match operator {
                "+" => CounterCommand::Add(right),
                "-" => CounterCommand::Subtract(right),
                "=" => CounterCommand::Set(right),
                "<" => CounterCommand::Less(right),
                "<=" => CounterCommand::AtMost(right),
                "==" => CounterCommand::Equal(right),
                "!=" => CounterCommand::NotEqual(right),
                ">=" => CounterCommand::AtLeast(right),
                ">" => CounterCommand::Greater(right),
                other => {
                    let why = format!("`{other}` is not one of + - = < <= == != >= >");
                    return Err(Fault::new(WORD, why));
                }
            }
        }
        _ => return Err(Fault::new(WORD, format!("`{value}` is not NAME,OPERATOR,VALUE or NAME,isset"))),
    };
    b.rule.state.push(StateTest::Counter(name, command));
    Ok(())
}

fn xbits(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "xbits";
    if value == "noalert" {
        b.rule.noalert = true;
        return Ok(());
    }
    let mut parts = value.split(',').map(str::trim);
    let command = command(WORD, parts.next().unwrap_or_default())?;
    let name = bit_name(WORD, parts.next().unwrap_or_default())?;
    let (mut keeper, mut seconds) = (None, 30);
    for part in parts {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words[..] {
            ["track", "ip_src"] => keeper = Some(Keeper::Source),
            ["track", "ip_dst"] => keeper = Some(Keeper::Destination),
            ["track", "ip_pair"] => keeper = Some(Keeper::Pair),
            ["track", "tx"] => keeper = Some(Keeper::Transaction),
            ["expire", n] => {
                let n = n.parse::<u32>().ok().filter(|n| *n > 0);
                seconds =
                    n.ok_or_else(|| Fault::new(WORD, format!("`{part}` is not a number of seconds")))?;
            }
            _ => return Err(Fault::new(WORD, format!("`{part}` is neither `track` nor `expire`"))),
        }
    }
    let keeper = keeper.ok_or_else(|| Fault::new(WORD, "has no `track`"))?;
    b.rule.state.push(StateTest::Bit(keeper, command, vec![name], seconds));
    Ok(())
}

fn hostbits(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "hostbits";
    if value == "noalert" {
        b.rule.noalert = true;
        return Ok(());
    }
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let (command, name, rest, seconds) = match parts[..] {
        [c, n] => (command(WORD, c)?, bit_name(WORD, n)?, "src", HOSTBITS_SECONDS),
        [c, n, side] => (command(WORD, c)?, bit_name(WORD, n)?, side, HOSTBITS_SECONDS),
        [c, n, side, s] => (command(WORD, c)?, bit_name(WORD, n)?, side, positive(WORD, "expire", Some(s))?),
        _ => return Err(Fault::new(WORD, format!("`{value}` is not COMMAND,NAME[,src|dst|both[,SECONDS]]"))),
    };
    let keepers: &[Keeper] = match rest {
        "src" => &[Keeper::Source],
        "dst" => &[Keeper::Destination],
        "both" => &[Keeper::Source, Keeper::Destination],
        other => return Err(Fault::new(WORD, format!("`{other}` is not `src`, `dst` or `both`"))),
    };
    for keeper in keepers {
        b.rule.state.push(StateTest::Bit(*keeper, command, vec![name.clone()], seconds));
    }
    Ok(())
}

fn track(word: &str, text: &str) -> Result<Track, Fault> {
    match text {
        "by_src" => Ok(Track::Source),
        "by_dst" => Ok(Track::Destination),
        "by_both" => Ok(Track::Both),
        "by_rule" => Ok(Track::Rule),
        "by_flow" => Ok(Track::Flow),
        other => Err(Fault::new(word, format!("`track {other}` is not known"))
            .or_nearest(other, ["by_src", "by_dst", "by_both", "by_rule", "by_flow"])),
    }
}

/// The values of a list of words and values, by the words.
fn fields<'a, const N: usize>(
    word: &str,
    text: &'a str,
    known: [&str; N],
) -> Result<[Option<&'a str>; N], Fault> {
    let mut found = [None; N];
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, value) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let Some(index) = known.iter().position(|k| *k == name) else {
            return Err(Fault::new(word, format!("`{name}` is not known")).or_nearest(name, known));
        };
        if found[index].replace(value.trim()).is_some() {
            return Err(Fault::new(word, format!("`{name}` is given twice")));
        }
    }
    Ok(found)
}

fn positive(word: &str, name: &str, value: Option<&str>) -> Result<u32, Fault> {
    let value = value.ok_or_else(|| Fault::new(word, format!("has no `{name}`")))?;
    let wrong = || Fault::new(word, format!("`{name} {value}` is not in 1..=4294967295"));
    value.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)
}

/// The value of `threshold`.
pub(crate) fn threshold(value: &str) -> Result<Threshold, Fault> {
    const WORD: &str = "threshold";
    let [kind, by, count, seconds, multiplier] =
        fields(WORD, value, ["type", "track", "count", "seconds", "multiplier"])?;
    let kind = match kind.unwrap_or_default() {
        "threshold" => ThresholdKind::Threshold,
        "limit" => ThresholdKind::Limit,
        "both" => ThresholdKind::Both,
        "backoff" => ThresholdKind::Backoff,
        other => {
            let fault = Fault::new(WORD, format!("`type {other}` is not known"));
            return Err(fault.or_nearest(other, ["threshold", "limit", "both", "backoff"]));
        }
    };
    let track = track(WORD, by.unwrap_or_default())?;
    let backoff = kind == ThresholdKind::Backoff;
    if backoff && track != Track::Flow {
        return Err(Fault::new(WORD, "`type backoff` needs `track by_flow`"));
    }
    if backoff && seconds.is_some() || !backoff && multiplier.is_some() {
        return Err(Fault::new(WORD, "`multiplier` is for `type backoff`, `seconds` for the others"));
    }
    Ok(Threshold {
        kind,
        track,
        count: positive(WORD, "count", count)?,
        seconds: if backoff { 0 } else { positive(WORD, "seconds", seconds)? },
        multiplier: if backoff { positive(WORD, "multiplier", multiplier)? } else { 1 },
    })
}

fn filter(value: &str) -> Result<Filter, Fault> {
    const WORD: &str = "detection_filter";
    let [by, count, seconds, unique] = fields(WORD, value, ["track", "count", "seconds", "unique_on"])?;
    let unique = match unique {
        None => None,
        Some("src_port") => Some(UniqueOn::SourcePort),
        Some("dst_port") => Some(UniqueOn::DestinationPort),
        Some("src_ip") => Some(UniqueOn::Source),
        Some("dst_ip") => Some(UniqueOn::Destination),
        Some(other) => {
            let fault = Fault::new(WORD, format!("`unique_on {other}` is not known"));
            return Err(fault.or_nearest(other, ["src_port", "dst_port", "src_ip", "dst_ip"]));
        }
    };
    Ok(Filter {
        track: track(WORD, by.unwrap_or_default())?,
        count: positive(WORD, "count", count)?,
        seconds: positive(WORD, "seconds", seconds)?,
        unique,
    })
}

/// `tag` has packets that follow a match logged. It changes no alert, so that it is read and checked only.
fn tag(value: &str) -> Result<(), Fault> {
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let known = match parts[..] {
        ["session" | "host"] => true,
        [kind @ ("session" | "host"), count, unit, ref rest @ ..] => {
            count.parse::<u32>().is_ok()
                && matches!(unit, "packets" | "seconds" | "bytes")
                && (rest.is_empty() || kind == "host" && matches!(rest, ["src" | "dst"]))
        }
        _ => false,
    };
    let wrong =
        || Fault::new("tag", format!("`{value}` is not session|host, N, packets|seconds|bytes[, src|dst]"));
    known.then_some(()).ok_or_else(wrong)
}
