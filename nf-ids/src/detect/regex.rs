//! `pcre` by PCRE2, compiled to machine code where it can be.
//!
//! The expressions of rules use what only a backtracking engine has (look-around, back references, possessive
//! groups), so that PCRE2 itself is asked. What an attacker could do with it is bounded: the number of
//! steps of one match, as in Suricata, and the memory of the compiled code's stack. A match that reaches the limit is no
//! match.

use pcre2::bytes::{Regex as Pcre2, RegexBuilder};

use crate::rules::Group;

/// Steps of one match.
const MATCH_LIMIT: u32 = 3500;
/// Bytes of stack for compiled code.
const STACK: usize = 1 << 20;

/// A compiled expression.
#[derive(Clone, Debug)]
pub(crate) struct Regex(Pcre2);

impl Regex {
    /// Compiles an expression; `unlimited` leaves PCRE2's own limit of steps.
    pub(crate) fn new(expression: &str, unlimited: bool) -> Result<Self, String> {
        let limited = if unlimited {
            expression.to_string()
        } else {
            format!("(*LIMIT_MATCH={MATCH_LIMIT}){expression}")
        };
        let mut builder = RegexBuilder::new();
        builder.jit_if_available(true).max_jit_stack_size(Some(STACK));
        builder.build(&limited).map(Regex).map_err(|e| e.to_string())
    }

    /// Where it matches first at or after `from`.
    pub(crate) fn find(&self, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
        if from > bytes.len() {
            return None;
        }
        self.0.find_at(bytes, from).ok().flatten().map(|m| (m.start(), m.end()))
    }

    /// The places of groups: by their numbers as they are, by their names where there is such a group.
    pub(crate) fn group_at(&self, group: &Group) -> Option<usize> {
        match group {
            Group::Number(at) => (*at <= self.groups()).then_some(*at),
            Group::Name(name) => self.0.capture_names().iter().position(|n| n.as_ref() == Some(name)),
        }
    }

    /// What groups have matched in the first match at or after `from`, each by its place.
    pub(crate) fn each_group(&self, bytes: &[u8], from: usize, mut each: impl FnMut(usize, (usize, usize))) {
        let mut places = self.0.capture_locations();
        if matches!(self.0.captures_read_at(&mut places, bytes, from), Ok(Some(_))) {
            for at in 1..places.len() {
                if let Some(place) = places.get(at) {
                    each(at, place);
                }
            }
        }
    }

    /// How many groups it has.
    pub(crate) fn groups(&self) -> usize {
        self.0.captures_len() - 1
    }

    /// Where its first group matched, if it matches at all.
    pub(crate) fn group(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let captures = self.0.captures(bytes).ok().flatten()?;
        captures.get(1).map(|m| (m.start(), m.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matches_and_gives_up_in_time() {
        let regex = Regex::new("(?i)^a(b+)", false).unwrap();
        assert_eq!(regex.find(b"ABBc", 0), Some((0, 3)));
        assert_eq!(regex.group(b"abbc"), Some((1, 3)));
        assert!(Regex::new("(", false).is_err());
        let slow = Regex::new("^(a+)+$", false).unwrap();
        assert_eq!(slow.find(&[&[b'a'; 5000][..], b"b"].concat(), 0), None);
    }
}
