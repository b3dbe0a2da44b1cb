//! One `content` looked for in one buffer.

use memchr::memmem;

use crate::rules::{Content, Value};

/// A content, ready to be looked for.
#[derive(Clone, Debug)]
pub(crate) struct Needle {
    pub(crate) content: Content,
    /// For contents whose case matters.
    finder: Option<memmem::Finder<'static>>,
    /// For the others: the byte to look for first, in both cases, and where it is in the pattern.
    rare: (u8, u8, usize),
}

/// The part of a buffer where a content may be, from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Needle {
    pub(crate) fn new(content: &Content) -> Self {
        let pattern = &content.pattern;
        let finder = (!content.nocase).then(|| memmem::Finder::new(pattern).into_owned());
        let usual = |b: u8| match b {
            b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' | b' ' | 0 => 3,
            b'a'..=b'z' | b'0'..=b'9' => 2,
            _ => 1,
        };
        let at = (0..pattern.len()).min_by_key(|i| usual(pattern[*i])).unwrap_or(0);
        let byte = pattern.get(at).copied().unwrap_or(0);
        let rare = (byte.to_ascii_lowercase(), byte.to_ascii_uppercase(), at);
        Needle { content: content.clone(), finder, rare }
    }

    /// The span to look in, `None` when the content cannot be there. `last` is the end of the last match.
    pub(crate) fn span(&self, length: usize, last: usize, variables: &[u64]) -> Option<Span> {
        let c = &self.content;
        let size = c.pattern.len();
        let value = |v: Option<Value>| v.map(|v| resolve(v, variables));
        let all = i64::try_from(length).unwrap_or(i64::MAX);
        let (mut start, mut end) = if c.is_relative() {
            let from = i64::try_from(last).unwrap_or(i64::MAX).saturating_add(value(c.distance).unwrap_or(0));
            let end = value(c.within).map_or(all, |w| from.saturating_add(w));
            (from, end)
        } else {
            let from = value(c.offset).unwrap_or(0);
            (from, value(c.depth).map_or(all, |d| from.saturating_add(d)))
        };
        if c.starts {
            end = i64::try_from(size).unwrap_or(i64::MAX);
        }
        end = end.min(all);
        if c.ends {
            if end < all {
                return None;
            }
            start = start.max(all - i64::try_from(size).unwrap_or(i64::MAX));
        }
        let (start, end) = (usize::try_from(start.max(0)).ok()?, usize::try_from(end).ok()?);
        (start <= end && end - start >= size).then_some(Span { start, end })
    }

    /// Where it is first, at or after `from`, within the span.
    pub(crate) fn find(&self, bytes: &[u8], from: usize, span: Span) -> Option<usize> {
        let end = span.end.min(bytes.len());
        let part = bytes.get(from..end)?;
        if let Some(finder) = &self.finder {
            return finder.find(part).map(|at| from + at);
        }
        let pattern = &self.content.pattern;
        let (lower, upper, back) = self.rare;
        let last = part.len().checked_sub(pattern.len())?;
        let places = part.get(back..=last + back)?;
        let hit = |at: &usize| part[*at..*at + pattern.len()].eq_ignore_ascii_case(pattern);
        if lower == upper {
            memchr::memchr_iter(lower, places).find(hit).map(|at| from + at)
        } else {
            memchr::memchr2_iter(lower, upper, places).find(hit).map(|at| from + at)
        }
    }
}

/// A constant, or what a variable was set to.
pub(crate) fn resolve(value: Value, variables: &[u64]) -> i64 {
    match value {
        Value::Is(n) => n,
        Value::Of(index) => variables.get(index).map_or(0, |v| i64::try_from(*v).unwrap_or(i64::MAX)),
    }
}
