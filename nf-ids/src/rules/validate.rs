//! Whether a rule can match at all, and who is to evaluate it.

use super::classes::Classes;
use super::compare::Compare;
use super::meta::DEFAULT_PRIORITY;
use super::refusal::Fault;
use super::rule::{Arrow, Field, HeaderTest, Kind, Protocol, Rule, TransactionTest, Way, Ways};
use super::state::{BitCommand, Keeper, StateTest, UniqueOn};
use super::test::{Absence, Content, Place, Section, Test, Value};
use crate::app::Protocol as Application;
use crate::app::{Buffer, Number};
use crate::flow::Direction;

/// Checks the whole and fills in what follows from it.
pub(crate) fn complete(mut rule: Rule, classes: &Classes) -> Result<Rule, Fault> {
    if rule.sid == 0 {
        return Err(Fault::new("sid", "is missing"));
    }
    if rule.priority == 0 {
        let class = rule.classtype.as_deref();
        rule.priority = class.and_then(|c| classes.priority(c)).unwrap_or(DEFAULT_PRIORITY);
    }
    for section in &mut rule.sections {
        as_the_buffer(section);
        contents(section)?;
    }
    fast_pattern(&rule)?;
    sizes(&rule)?;
    protocols(&rule)?;
    ways(&mut rule)?;
    payload(&mut rule)?;
    bits(&rule)?;
    ports(&rule)?;
    rule.kind = kind(&rule);
    Ok(rule)
}

fn contents(section: &Section) -> Result<(), Fault> {
    let absent = section.tests.iter().any(|t| matches!(t, Test::Absent(Absence::Only | Absence::MustError)));
    if absent && section.tests.len() > 1 {
        return Err(Fault::new("absent", "what is absent cannot be asked anything; say `absent: or_else`"));
    }
    let bounds = section.tests.iter().filter_map(|t| match t {
        Test::Size(compare) => Some(*compare),
        _ => None,
    });
    for bound in bounds {
        let most = match bound {
            Compare::Equal(n) | Compare::AtMost(n) => n,
            Compare::Less(n) | Compare::Between(_, n) => n.saturating_sub(1),
            _ => continue,
        };
        for content in section.tests.iter().filter_map(positive) {
            let needed = content.pattern.len() as u64 + offset(content);
            if needed > most {
                let why = format!("at most {most} bytes cannot hold a content that ends at byte {needed}");
                return Err(Fault::new("bsize", why));
            }
        }
    }
    Ok(())
}

/// Contents in the letters of their buffer, where what is asked is the buffer itself.
fn as_the_buffer(section: &mut Section) {
    let (Place::App(buffer), true) = (section.place, section.transforms.is_empty()) else { return };
    for test in &mut section.tests {
        if let Test::Content(content) = test
            && !content.nocase
        {
            super::buffers::fold(buffer, &mut content.pattern);
        }
    }
}

fn positive(test: &Test) -> Option<&Content> {
    match test {
        Test::Content(content) if !content.negated => Some(content),
        _ => None,
    }
}

fn offset(content: &Content) -> u64 {
    match content.offset {
        Some(Value::Is(n)) => u64::try_from(n).unwrap_or(0),
        _ => 0,
    }
}

fn fast_pattern(rule: &Rule) -> Result<(), Fault> {
    for section in &rule.sections {
        let Some(fast) = section.fast else { continue };
        let Some(Test::Content(content)) = section.tests.get(fast.test) else { continue };
        let placed = content.is_relative() || content.offset.is_some() || content.depth.is_some();
        if content.negated && placed {
            return Err(Fault::new(
                "fast_pattern",
                "a negated content with a place cannot be the fast pattern",
            ));
        }
        if fast.only && (placed || content.negated) {
            return Err(Fault::new("fast_pattern", "`only` is for contents without a place and without `!`"));
        }
        if section.place == Place::Base64 {
            return Err(Fault::new("fast_pattern", "cannot be in `base64_data`"));
        }
    }
    Ok(())
}

/// `dsize` that no content fits into.
fn sizes(rule: &Rule) -> Result<(), Fault> {
    for header in &rule.headers {
        let HeaderTest::Number(Field::PayloadSize, compare) = header else { continue };
        let most = match compare {
            Compare::Equal(n) | Compare::AtMost(n) => *n,
            Compare::Less(n) | Compare::Between(_, n) => n.saturating_sub(1),
            _ => continue,
        };
        for section in rule.sections.iter().filter(|s| s.place == Place::Payload) {
            for content in section.tests.iter().filter_map(positive) {
                let needed = content.pattern.len() as u64 + offset(content);
                if needed > most {
                    let why = format!("a payload of at most {most} bytes cannot hold {needed}");
                    return Err(Fault::new("dsize", why));
                }
            }
        }
    }
    Ok(())
}

/// What a part of a rule that is of a transaction is called, its protocols, and the direction that it stands in.
struct Part {
    name: &'static str,
    protocols: &'static [Application],
    way: Option<Way>,
}

fn parts(rule: &Rule) -> Vec<Part> {
    let mut all = Vec::new();
    for section in &rule.sections {
        if let Place::App(buffer) = section.place {
            let way = match (buffer.is_in(Direction::ToServer), buffer.is_in(Direction::ToClient)) {
                (true, false) => Some(Way::ToServer),
                (false, true) => Some(Way::ToClient),
                _ => None,
            };
            all.push(Part { name: buffer.keyword(), protocols: buffer.protocols(), way });
        }
    }
    for test in &rule.transaction {
        let (name, number) = match test {
            TransactionTest::Number(number, _) | TransactionTest::Several(number, _) => ("a number", *number),
            TransactionTest::Versions(..) => ("ssl_version", Number::TlsVersion),
            TransactionTest::CertificateValid(_) => ("tls_cert_valid", Number::TlsCertNotAfter),
            TransactionTest::FtpBounce => {
                let protocols = Buffer::FtpCommandData.protocols();
                all.push(Part { name: "ftpbounce", protocols, way: Some(Way::ToServer) });
                continue;
            }
            TransactionTest::Event(_) => continue,
        };
        all.push(Part { name, protocols: number.protocols(), way: None });
    }
    all
}

fn protocols(rule: &Rule) -> Result<(), Fault> {
    for part in parts(rule) {
        let fits = match rule.protocol {
            Protocol::App(name) => Application::by_rule_name(name).iter().any(|p| part.protocols.contains(p)),
            Protocol::Icmp | Protocol::Icmpv4 | Protocol::Icmpv6 | Protocol::Arp | Protocol::PacketHeader => {
                false
            }
            _ => true,
        };
        if !fits {
            let of: Vec<&str> = part.protocols.iter().map(|p| p.name()).collect();
            let why = format!("is of {}, which a rule for this protocol never sees", of.join(", "));
            return Err(Fault::new(part.name, why));
        }
    }
    Ok(())
}

fn ways(rule: &mut Rule) -> Result<(), Fault> {
    let mut ways = match rule.flow.way {
        None => Ways { to_server: true, to_client: true },
        Some(way) => Ways { to_server: way == Way::ToServer, to_client: way == Way::ToClient },
    };
    if rule.arrow == Arrow::Transaction {
        if rule.flow.way.is_some() {
            return Err(Fault::new("flow", "a rule with `=>` is about both directions"));
        }
        if !matches!(rule.protocol, Protocol::App(_)) && parts(rule).is_empty() {
            return Err(Fault::new("direction", "`=>` needs an application protocol"));
        }
        rule.ways = ways;
        return Ok(());
    }
    for part in parts(rule) {
        match part.way {
            Some(Way::ToServer) => ways.to_client = false,
            Some(Way::ToClient) => ways.to_server = false,
            None => {}
        }
        if !ways.to_client && !ways.to_server {
            let why = "stands in the direction that the rest of the rule is not about; a rule with `=>` may ask both";
            return Err(Fault::new(part.name, why));
        }
    }
    rule.ways = ways;
    Ok(())
}

/// Whether raw bytes are looked for in packets, in the stream, or in both.
fn payload(rule: &mut Rule) -> Result<(), Fault> {
    let packet_headers = rule.headers.iter().any(|h| {
        !matches!(h, HeaderTest::StreamSize(..) | HeaderTest::AppProtocol(..) | HeaderTest::StreamEvent(_))
    });
    let header_bytes = rule.sections.iter().any(|s| matches!(s.place, Place::Header(_)));
    rule.of_packet =
        packet_headers || header_bytes || rule.flow.no_stream || rule.protocol == Protocol::TcpPacket;
    rule.of_stream = rule.flow.only_stream || rule.protocol == Protocol::TcpStream;
    if rule.of_packet
        && rule.of_stream
        && rule.headers.iter().any(|h| matches!(h, HeaderTest::Number(Field::PayloadSize, _)))
    {
        return Err(Fault::new("dsize", "is of packets, and the rule is about the stream only"));
    }
    if !rule.has_payload_tests() {
        return Ok(());
    }
    let tcp = !matches!(
        rule.protocol,
        Protocol::Udp
            | Protocol::Icmp
            | Protocol::Icmpv4
            | Protocol::Icmpv6
            | Protocol::Sctp
            | Protocol::Number(_)
    );
    if tcp && !rule.of_packet && !rule.of_stream {
        rule.of_stream = true;
        // What has its place in the payload is also tried on each packet.
        let placed = |test: &Test| matches!(test, Test::Content(c) if c.offset.is_some() || c.depth.is_some() || c.starts);
        let payload = rule.sections.iter().filter(|s| s.place == Place::Payload);
        rule.of_packet = payload.flat_map(|s| &s.tests).any(placed);
    }
    Ok(())
}

/// Ports that are to differ where there are none.
fn ports(rule: &Rule) -> Result<(), Fault> {
    let on_ports = rule
        .detection_filter
        .is_some_and(|f| matches!(f.unique, Some(UniqueOn::SourcePort | UniqueOn::DestinationPort)));
    let has = matches!(
        rule.protocol,
        Protocol::Tcp
            | Protocol::TcpPacket
            | Protocol::TcpStream
            | Protocol::Udp
            | Protocol::Sctp
            | Protocol::App(_)
    );
    if on_ports && !has {
        let why = "`unique_on` a port is for rules of tcp, udp, sctp or an application protocol";
        return Err(Fault::new("detection_filter", why));
    }
    Ok(())
}

/// A bit that is asked for in ways that exclude each other.
fn bits(rule: &Rule) -> Result<(), Fault> {
    let named = |wanted: BitCommand| {
        rule.state.iter().filter_map(move |s| match s {
            StateTest::Bit(Keeper::Flow, command, names, _) if *command == wanted && names.len() == 1 => {
                Some(names[0].clone())
            }
            _ => None,
        })
    };
    for (one, other) in [(BitCommand::IsSet, BitCommand::IsNotSet), (BitCommand::Set, BitCommand::Unset)] {
        if let Some(name) = named(one).find(|name| named(other).any(|n| n == *name)) {
            return Err(Fault::new("flowbits", format!("`{name}` is asked or done both ways")));
        }
    }
    Ok(())
}

fn kind(rule: &Rule) -> Kind {
    let app_parts =
        !rule.transaction.is_empty() || rule.sections.iter().any(|s| matches!(s.place, Place::App(_)));
    if app_parts {
        return Kind::Transaction;
    }
    let protocol_test = |h: &HeaderTest| matches!(h, HeaderTest::AppProtocol(..));
    let plain = rule.sections.is_empty() && !has_flow(rule);
    if matches!(rule.protocol, Protocol::App(_)) {
        return if rule.has_payload_tests() { payload_kind(rule) } else { Kind::App };
    }
    if plain && !rule.headers.is_empty() && rule.headers.iter().all(protocol_test) {
        return Kind::ProtocolOnly;
    }
    if rule.headers.iter().any(|h| matches!(h, HeaderTest::DecodeEvent(_)))
        && rule.protocol == Protocol::PacketHeader
    {
        return Kind::Decoder;
    }
    if rule.has_payload_tests() {
        return payload_kind(rule);
    }
    let ports = rule.source_ports.is_any() && rule.destination_ports.is_any();
    let only = |h: &HeaderTest| matches!(h, HeaderTest::Number(Field::IpProtocol, _));
    let state = rule.state.iter().all(|s| {
        !matches!(s, StateTest::Bit(Keeper::Flow, command, ..) if *command != BitCommand::Set)
            && !matches!(s, StateTest::Counter(..))
    });
    let by_address = !matches!(rule.protocol, Protocol::Arp | Protocol::PacketHeader);
    if plain && ports && state && by_address && rule.headers.iter().all(only) {
        let negated = rule.source.has_negation() || rule.destination.has_negation();
        return if negated { Kind::LikeIpOnly } else { Kind::IpOnly };
    }
    Kind::Packet
}

fn payload_kind(rule: &Rule) -> Kind {
    match (rule.of_packet, rule.of_stream) {
        (true, true) => Kind::PacketAndStream,
        (false, true) => Kind::Stream,
        _ => Kind::Packet,
    }
}

fn has_flow(rule: &Rule) -> bool {
    rule.flow != super::rule::FlowTest::default()
}
