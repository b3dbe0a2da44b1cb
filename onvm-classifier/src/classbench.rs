//! Filter sets and traces as ClassBench writes them.
//!
//! ```text
//! @10.1.0.0/16  192.168.7.0/24  0 : 65535  80 : 80  0x06/0xFF  0x0000/0x0200
//! 167837697 3232237313 40000 80 6 0 1
//! ```
//! A line of a filter set has source and destination prefix, source and destination ports, protocol and mask,
//! and, in some sets, TCP flags and mask. A line of a trace has source, destination, source and destination
//! port and protocol; what follows (flags, and the rule that the generator had in mind, which need not be the
//! first that matches) is not read. Between two fields stand blanks or tabs. Addresses are dotted, of IPv6, or
//! one decimal number. Empty lines and what follows a `#` are skipped.
//!
//! Source: D. Taylor and J. Turner, "ClassBench: A Packet Classification Benchmark", INFOCOM 2005.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::{Header, Ports, Rule5};

/// One line of a filter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The five fields.
    pub rule: Rule5,
    /// TCP flags, compared where `flags_mask` has ones. The lookups of ClassBench do not regard them.
    pub flags: u16,
    /// 0 if the flags do not matter, or are not given.
    pub flags_mask: u16,
    /// The line, counted from 1.
    pub line: usize,
}

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The name of the file, as given.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1 in bytes.
    pub column: usize,
    /// The field that could not be read.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.field, self.reason)
    }
}

impl std::error::Error for ParseError {}

/// Reads a filter set. `file` is its name, for errors.
///
/// # Errors
/// The first mistake.
pub fn filters(file: &str, text: &str) -> Result<Vec<Filter>, ParseError> {
    lines(file, text, filter)
}

/// Reads a trace. `file` is its name, for errors.
///
/// # Errors
/// The first mistake.
pub fn trace(file: &str, text: &str) -> Result<Vec<Header>, ParseError> {
    lines(file, text, header)
}

fn lines<T>(
    file: &str,
    text: &str,
    read: impl Fn(&mut Fields<'_>) -> Result<T, Mistake>,
) -> Result<Vec<T>, ParseError> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut fields = Fields { line, at: 0, number: index + 1 };
        if fields.ended() {
            continue;
        }
        all.push(read(&mut fields).map_err(|mistake| {
            let Mistake { column, field, reason } = mistake;
            ParseError { file: file.to_string(), line: index + 1, column, field, reason }
        })?);
    }
    Ok(all)
}

fn filter(fields: &mut Fields<'_>) -> Result<Filter, Mistake> {
    if !fields.sign('@') {
        return Err(fields.mistake("filter", "a filter begins with `@`".into()));
    }
    let source = fields.prefix("source prefix")?;
    fields.skip_blanks();
    let before = fields.at;
    let destination = fields.prefix("destination prefix")?;
    if source.addr().is_ipv4() != destination.addr().is_ipv4() {
        fields.at = before;
        let reason = format!("{source} and {destination} are of different families: no packet matches");
        return Err(fields.mistake("destination prefix", reason));
    }
    let source_ports = fields.ports("source ports")?;
    let destination_ports = fields.ports("destination ports")?;
    let (protocol, protocol_mask) = fields.masked("protocol", 0xFF)?;
    let (flags, flags_mask) = if fields.ended() { (0, 0) } else { fields.masked("flags", 0xFFFF)? };
    if !fields.ended() {
        let word = fields.word();
        return Err(fields.mistake("end of line", format!("`{word}` is one field too many")));
    }
    #[allow(clippy::cast_possible_truncation, reason = "checked against the greatest value")]
    let rule = Rule5 {
        source: Some(source),
        destination: Some(destination),
        source_ports,
        destination_ports,
        protocol: protocol as u8,
        protocol_mask: protocol_mask as u8,
    };
    Ok(Filter { rule, flags, flags_mask, line: fields.number })
}

fn header(fields: &mut Fields<'_>) -> Result<Header, Mistake> {
    let source = fields.address("source")?;
    let destination = fields.address("destination")?;
    let sport = fields.number("source port", 0xFFFF)?;
    let dport = fields.number("destination port", 0xFFFF)?;
    let protocol = fields.number("protocol", 0xFF)?;
    #[allow(clippy::cast_possible_truncation, reason = "checked against the greatest value")]
    Header::new(source, destination, sport, dport, protocol as u8).ok_or_else(|| {
        fields.mistake("destination", format!("{source} and {destination} are of different families"))
    })
}

/// A mistake in a line.
struct Mistake {
    column: usize,
    field: &'static str,
    reason: String,
}

/// Takes a line apart.
struct Fields<'a> {
    line: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Fields<'a> {
    fn skip_blanks(&mut self) {
        let rest = &self.line[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn ended(&mut self) -> bool {
        self.skip_blanks();
        self.at == self.line.len()
    }

    fn mistake(&self, field: &'static str, reason: String) -> Mistake {
        Mistake { column: self.at + 1, field, reason }
    }

    /// Whether `sign` comes next; if so, it is taken.
    fn sign(&mut self, sign: char) -> bool {
        self.skip_blanks();
        let found = self.line[self.at..].starts_with(sign);
        self.at += if found { sign.len_utf8() } else { 0 };
        found
    }

    /// What comes next, up to a blank; it is not taken yet. Empty at the end of the line.
    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let rest = &self.line[self.at..];
        &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())]
    }

    /// Reads the next word with `read`, which says what is wrong with it.
    fn read<T>(
        &mut self,
        field: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Mistake> {
        let word = self.word();
        if word.is_empty() {
            return Err(self.mistake(field, "the line ends here".into()));
        }
        let value = read(word).map_err(|reason| self.mistake(field, reason))?;
        self.at += word.len();
        Ok(value)
    }

    fn prefix(&mut self, field: &'static str) -> Result<IpNet, Mistake> {
        self.read(field, |word| {
            let (address, length) = word.split_once('/').unwrap_or((word, ""));
            let address: IpAddr =
                address.parse().map_err(|_| format!("`{address}` is not an IPv4 or IPv6 address"))?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let length = match word.contains('/') {
                true => length.parse().ok().filter(|length| *length <= longest),
                false => Some(longest),
            };
            let length = length.ok_or_else(|| format!("`{word}` has no prefix length of 0..={longest}"))?;
            IpNet::new(address, length).map_err(|error| error.to_string())
        })
    }

    /// `first : last`, with or without blanks.
    fn ports(&mut self, field: &'static str) -> Result<Ports, Mistake> {
        let first = self.port(field)?;
        if !self.sign(':') {
            return Err(self.mistake(field, "a range is written `first : last`".into()));
        }
        self.skip_blanks();
        let before = self.at;
        let last = self.port(field)?;
        if first > last {
            self.at = before;
            return Err(self.mistake(field, format!("the range {first} : {last} ends before it begins")));
        }
        Ok(Ports { first, last })
    }

    fn port(&mut self, field: &'static str) -> Result<u16, Mistake> {
        let word = self.word();
        let digits = &word[..word.find(':').unwrap_or(word.len())];
        if digits.is_empty() {
            let reason = if word.is_empty() { "the line ends here" } else { "a port is missing before `:`" };
            return Err(self.mistake(field, reason.into()));
        }
        let port = number(digits, 0xFFFF).map_err(|reason| self.mistake(field, reason))?;
        self.at += digits.len();
        Ok(port)
    }

    /// `value/mask`, in hexadecimal or decimal digits.
    fn masked(&mut self, field: &'static str, greatest: u16) -> Result<(u16, u16), Mistake> {
        self.read(field, |word| {
            let (value, mask) =
                word.split_once('/').ok_or_else(|| format!("`{word}` is not of the form value/mask"))?;
            Ok((number(value, greatest)?, number(mask, greatest)?))
        })
    }

    fn number(&mut self, field: &'static str, greatest: u16) -> Result<u16, Mistake> {
        self.read(field, |word| number(word, greatest))
    }

    fn address(&mut self, field: &'static str) -> Result<IpAddr, Mistake> {
        self.read(field, |word| {
            if word.contains(['.', ':']) {
                return word.parse().map_err(|_| format!("`{word}` is not an IPv4 or IPv6 address"));
            }
            let bits = word.parse().map_err(|_| format!("`{word}` is not a number of 0..={}", u32::MAX))?;
            Ok(Ipv4Addr::from_bits(bits).into())
        })
    }
}

/// A number in decimal digits, or hexadecimal ones after `0x`.
fn number(word: &str, greatest: u16) -> Result<u16, String> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let value = digits.map_or_else(|| word.parse::<u32>(), |digits| u32::from_str_radix(digits, 16));
    let value =
        value.ok().filter(|_| !word.contains('+')).ok_or_else(|| format!("`{word}` is not a number"))?;
    let fits = u16::try_from(value).ok().filter(|value| *value <= greatest);
    fits.ok_or_else(|| format!("{word} is out of range 0..={greatest}"))
}

#[cfg(test)]
mod tests;
