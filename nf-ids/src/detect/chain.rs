//! A section's tests, one after the other, over one buffer.
//!
//! A `content` may be in several places; when what follows it counts from there, and fails, the next place is tried. A
//! test that does not count from a match fails the same way wherever the match was, so that no other
//! place is tried for it: that keeps the work near the length of the buffer. Bounds on the steps of one rule over one
//! buffer, and on the bytes that it reads, keep it finite whatever an attacker sends.

use super::base64;
use super::file::Known;
use super::find::{Needle, resolve};
use super::names;
use super::numbers;
use super::regex::Regex;
use crate::rules::{Absence, Base64Mode, Capture, Endian, Section, Test};

/// Steps of one evaluation of a section: matches tried.
const MOST_STEPS: u32 = 3_000;
/// Bytes that the steps of one evaluation read; a buffer is read a few times by a rule that means well.
const MOST_READ: usize = 16 << 20;

/// A group of an expression whose match is kept: its place, whether with the flow, and the name's hash.
type Keep = (usize, bool, u64);

/// What a group has matched, on its way to the flow or the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) of_flow: bool,
    pub(crate) name: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Bytes of a group that are kept.
const MOST_KEPT: usize = 4096;

/// A test with what it needs compiled.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Content(Box<Needle>),
    Regex { regex: Regex, negated: bool, relative: bool, keeps: Vec<Keep> },
    Other(Test),
}

/// The tests of a section.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    steps: Vec<Step>,
    /// Whether a later step counts from a step's match.
    chained: Vec<bool>,
    /// Something must be found in the bytes: the end of it says whether a match in a stream is new.
    pub(crate) finds: bool,
}

impl Chain {
    pub(crate) fn new(section: &Section) -> Result<Self, String> {
        let mut steps = Vec::with_capacity(section.tests.len());
        for test in &section.tests {
            steps.push(match test {
                Test::Content(content) => Step::Content(Box::new(Needle::new(content))),
                Test::Pcre(p) => {
                    let regex = Regex::new(&p.expression, p.unlimited)?;
                    let keep =
                        |c: &Capture| Some((regex.group_at(&c.group)?, c.of_flow, names::hash(&c.name)));
                    let keeps: Option<Vec<Keep>> = p.captures.iter().map(keep).collect();
                    let keeps =
                        keeps.ok_or_else(|| format!("`{}` has no group for each name", p.expression))?;
                    Step::Regex { regex, negated: p.negated, relative: p.relative, keeps }
                }
                other => Step::Other(other.clone()),
            });
        }
        let chained = (0..steps.len()).map(|i| is_counted_from(&steps[i + 1..])).collect();
        let finds = steps.iter().any(|s| match s {
            Step::Content(needle) => !needle.content.negated,
            Step::Regex { negated, .. } => !negated,
            Step::Other(_) => false,
        });
        Ok(Chain { steps, chained, finds })
    }

    /// What is asked of a buffer that is not there, or of which transforms make nothing.
    pub(crate) fn absence(&self) -> Option<Absence> {
        match self.steps.first() {
            Some(Step::Other(Test::Absent(asked))) => Some(*asked),
            _ => None,
        }
    }
}

/// Whether one of these steps counts from the match before the first of them.
fn is_counted_from(steps: &[Step]) -> bool {
    let first = steps.iter().find(|step| is_relative(step) || moves(step));
    first.is_some_and(is_relative)
}

/// Whether what follows a step counts from it.
fn moves(step: &Step) -> bool {
    match step {
        Step::Content(needle) => !needle.content.negated,
        Step::Regex { negated, .. } => !negated,
        Step::Other(test) => {
            matches!(test, Test::ByteJump(_) | Test::ByteExtract(..) | Test::ByteMath(..))
        }
    }
}

/// Whether a test counts from the last match.
fn is_relative(step: &Step) -> bool {
    match step {
        Step::Content(needle) => needle.content.is_relative(),
        Step::Regex { relative, .. } => *relative,
        Step::Other(test) => match test {
            Test::DataAt(_, relative, _) | Test::Base64 { relative, .. } => *relative,
            Test::Asn1(asked) => matches!(asked.offset, Some((_, true))),
            Test::ByteTest(n, ..) | Test::ByteExtract(n, ..) | Test::ByteMath(n, ..) => n.relative,
            Test::ByteJump(jump) => jump.number.relative,
            _ => false,
        },
    }
}

/// What an evaluation works with.
#[derive(Debug)]
pub(crate) struct Work {
    /// Values of the rule's variables.
    pub(crate) variables: Vec<u64>,
    /// What `base64_decode` made.
    decoded: Vec<u8>,
    steps: u32,
    read: usize,
    /// Byte order of the DCE/RPC call.
    pub(crate) dce: Endian,
    /// The farthest end of something found in the last evaluation.
    pub(crate) farthest: usize,
    /// What is known of the file that is asked about.
    pub(crate) file: Known,
    /// What groups of expressions have matched.
    pub(crate) kept: Vec<Kept>,
}

impl Default for Work {
    fn default() -> Self {
        Work {
            variables: Vec::new(),
            decoded: Vec::new(),
            steps: 0,
            read: 0,
            dce: Endian::Little,
            farthest: 0,
            file: Known::default(),
            kept: Vec::new(),
        }
    }
}

impl Work {
    /// For another rule.
    pub(crate) fn begin(&mut self, variables: usize) {
        self.variables.clear();
        self.variables.resize(variables, 0);
        self.kept.clear();
        self.farthest = 0;
    }

    /// Whether `chain` matches `bytes`. `base64` are the sections that ask about what is decoded on the way.
    pub(crate) fn matches(&mut self, chain: &Chain, base64: &[Chain], bytes: &[u8]) -> bool {
        (self.steps, self.read) = (0, 0);
        self.run(chain, base64, bytes, 0, 0)
    }

    fn run(&mut self, chain: &Chain, base64: &[Chain], bytes: &[u8], at: usize, last: usize) -> bool {
        let Some(step) = chain.steps.get(at) else { return true };
        match step {
            Step::Content(needle) => self.content(chain, base64, bytes, at, last, needle),
            Step::Regex { regex, negated, relative, keeps } => {
                let base = if *relative { last.min(bytes.len()) } else { 0 };
                let before = self.kept.len();
                if !negated && !keeps.is_empty() {
                    self.keep(regex, keeps, &bytes[base..]);
                }
                let held = self.regex(chain, base64, bytes, at, (base, last), (regex, *negated));
                if !held {
                    self.kept.truncate(before);
                }
                held
            }
            Step::Other(test) => match self.other(test, base64, bytes, last) {
                Some(last) => self.run(chain, base64, bytes, at + 1, last),
                None => false,
            },
        }
    }

    /// Keeps what groups have matched.
    fn keep(&mut self, regex: &Regex, keeps: &[Keep], bytes: &[u8]) {
        let kept = &mut self.kept;
        regex.each_group(bytes, 0, |at, (from, to)| {
            for (_, of_flow, name) in keeps.iter().filter(|(place, ..)| *place == at) {
                let bytes = bytes[from..to.min(from + MOST_KEPT)].to_vec();
                kept.push(Kept { of_flow: *of_flow, name: *name, bytes });
            }
        });
    }

    /// Counts a step that reads so many bytes; whether it was one too many.
    fn is_too_much(&mut self, bytes: usize) -> bool {
        self.steps += 1;
        self.read = self.read.saturating_add(bytes);
        self.steps > MOST_STEPS || self.read > MOST_READ
    }

    fn content(
        &mut self,
        chain: &Chain,
        base64: &[Chain],
        bytes: &[u8],
        at: usize,
        last: usize,
        needle: &Needle,
    ) -> bool {
        let span = needle.span(bytes.len(), last, &self.variables);
        if needle.content.negated {
            let there = span.and_then(|span| needle.find(bytes, span.start, span));
            let read = span.map_or(0, |span| there.unwrap_or(span.end).saturating_sub(span.start));
            return !self.is_too_much(read)
                && there.is_none()
                && self.run(chain, base64, bytes, at + 1, last);
        }
        let Some(span) = span else { return false };
        let mut from = span.start;
        loop {
            let found = needle.find(bytes, from, span);
            if self.is_too_much(found.unwrap_or(span.end).saturating_sub(from)) {
                return false;
            }
            let Some(found) = found else { return false };
            let end = found + needle.content.pattern.len();
            let before = self.farthest;
            self.farthest = before.max(end);
            if self.run(chain, base64, bytes, at + 1, end) {
                return true;
            }
            self.farthest = before;
            if !chain.chained[at] {
                return false;
            }
            from = found + 1;
        }
    }

    fn regex(
        &mut self,
        chain: &Chain,
        base64: &[Chain],
        bytes: &[u8],
        at: usize,
        (base, last): (usize, usize),
        (regex, negated): (&Regex, bool),
    ) -> bool {
        let part = &bytes[base..];
        if negated {
            let too_much = self.is_too_much(part.len());
            return !too_much
                && regex.find(part, 0).is_none()
                && self.run(chain, base64, bytes, at + 1, last);
        }
        let mut from = 0;
        loop {
            let found = regex.find(part, from);
            if self.is_too_much(found.map_or(part.len(), |(_, end)| end).saturating_sub(from)) {
                return false;
            }
            let Some((start, end)) = found else { return false };
            let before = self.farthest;
            self.farthest = before.max(base + end);
            if self.run(chain, base64, bytes, at + 1, base + end) {
                return true;
            }
            self.farthest = before;
            if !chain.chained[at] {
                return false;
            }
            from = start + 1;
        }
    }

    /// A test that has one outcome: where the last match is after it, or `None`.
    fn other(&mut self, test: &Test, base64: &[Chain], bytes: &[u8], last: usize) -> Option<usize> {
        let value = |v| resolve(v, &self.variables);
        match test {
            Test::Content(_) | Test::Pcre(_) => None,
            Test::DataAt(far, relative, negated) => {
                let far = usize::try_from(value(*far)).ok()?;
                let there =
                    if *relative { last.saturating_add(far) <= bytes.len() } else { far < bytes.len() };
                (there != *negated).then_some(last)
            }
            Test::Size(compare) => compare.holds(bytes.len() as u64).then_some(last),
            Test::ByteTest(number, operator, negated, right) => {
                let (read, _) = numbers::read(number, bytes, last, &self.variables, self.dce)?;
                let right = match right {
                    crate::rules::Value::Is(n) => u64::try_from(*n).ok()?,
                    crate::rules::Value::Of(index) => *self.variables.get(*index)?,
                };
                (numbers::holds(read, *operator, right) != *negated).then_some(last)
            }
            Test::ByteJump(jump) => self.jump(jump, bytes, last),
            Test::ByteExtract(number, multiplier, align, variable) => {
                let (read, end) = numbers::read(number, bytes, last, &self.variables, self.dce)?;
                let read = read.wrapping_mul(u64::from(*multiplier));
                *self.variables.get_mut(*variable)? = numbers::align(read, u64::from(*align));
                Some(end)
            }
            Test::ByteMath(number, operator, right, variable) => {
                let (read, end) = numbers::read(number, bytes, last, &self.variables, self.dce)?;
                let right = match right {
                    crate::rules::Value::Is(n) => u64::try_from(*n).ok()?,
                    crate::rules::Value::Of(index) => *self.variables.get(*index)?,
                };
                *self.variables.get_mut(*variable)? = numbers::calculate(read, *operator, right)?;
                Some(end)
            }
            Test::Base64 { bytes: most, offset, relative } => {
                let start = offset + if *relative { last } else { 0 };
                let rest = bytes.get(start..)?;
                let part = if *most == 0 { rest } else { rest.get(..*most).unwrap_or(rest) };
                self.decode(part, base64).then_some(last)
            }
            Test::Asn1(asked) => super::ber::holds(asked, bytes, last).then_some(last),
            Test::Set(asked) => asked.holds(bytes).then_some(last),
            Test::FileSize(compare) => self.file.size_holds(*compare, bytes.len()).then_some(last),
            Test::FileHash(asked) => self.file.hash_holds(asked, bytes).then_some(last),
            Test::Absent(asked) => matches!(asked, Absence::OrElse | Absence::ErrorOr).then_some(last),
            Test::Entropy(most, offset, compare) => {
                let rest = bytes.get(*offset..)?;
                let part = if *most == 0 { rest } else { rest.get(..*most).unwrap_or(rest) };
                compare.holds(entropy(part)).then_some(last)
            }
        }
    }

    fn decode(&mut self, part: &[u8], chains: &[Chain]) -> bool {
        let mut decoded = std::mem::take(&mut self.decoded);
        base64::decode(part, Base64Mode::Rfc4648, &mut decoded);
        let farthest = self.farthest;
        let held = !decoded.is_empty() && chains.iter().all(|chain| self.run(chain, &[], &decoded, 0, 0));
        self.farthest = farthest;
        self.decoded = decoded;
        held
    }

    fn jump(&self, jump: &crate::rules::Jump, bytes: &[u8], last: usize) -> Option<usize> {
        let empty = resolve(jump.number.bytes, &self.variables) == 0;
        let (read, end) = if empty {
            let base = if jump.number.relative { last } else { 0 };
            let at = i64::try_from(base).ok()? + resolve(jump.number.offset, &self.variables);
            (0, usize::try_from(at).ok()?)
        } else {
            numbers::read(&jump.number, bytes, last, &self.variables, self.dce)?
        };
        let mut far = read.checked_mul(u64::from(jump.multiplier))?;
        if jump.align {
            far = numbers::align(far, 4);
        }
        let base = if jump.from_beginning {
            0
        } else if jump.from_end {
            bytes.len()
        } else {
            end
        };
        let to = i64::try_from(base).ok()?.checked_add(i64::try_from(far).ok()?)?;
        let to = to.checked_add(resolve(jump.post_offset, &self.variables))?;
        // A jump to before the buffer lands at its start, one to behind it is no match.
        let to = usize::try_from(to.max(0)).ok()?;
        (to <= bytes.len()).then_some(to)
    }
}

/// Shannon's entropy, in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let all = bytes.len() as f64;
    let part = |count: &u32| {
        let share = f64::from(*count) / all;
        -share * share.log2()
    };
    counts.iter().filter(|c| **c > 0).map(part).sum()
}
