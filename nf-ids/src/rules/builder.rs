//! Building a rule from its options, in order: the order decides what a modifier modifies and which buffer is meant.

use super::list::{Addresses, Ports};
use super::refusal::Fault;
use super::rule::{Action, Arrow, FlowTest, HeaderTest, Kind, Protocol, Rule, Ways};
use super::test::{Content, Fast, Place, Section, Test, Transform, Value};
use crate::app::Buffer;

/// Sections that a rule may have.
const MOST_SECTIONS: usize = 64;
/// Tests of a section; each is a step deeper into the stack.
const MOST_TESTS: usize = 256;

/// What `fast_pattern` said of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) only: bool,
    /// First byte and length of a chopped pattern.
    pub(crate) part: Option<(usize, usize)>,
}

/// A rule in the making.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) rule: Rule,
    /// Section of the sticky buffer that is in force; `None`: the payload.
    pub(crate) sticky: Option<usize>,
    /// The last `content`: section and test.
    last_content: Option<(usize, usize)>,
    /// Section of the last test of bytes: what is relative goes on there.
    last_section: Option<usize>,
    /// The content that `fast_pattern` names.
    pub(crate) fast: Option<((usize, usize), Asked)>,
    /// Transforms that wait for the tests that they are for.
    waiting: Vec<Transform>,
    /// Names of variables, by index.
    names: Vec<String>,
    /// `gid`, `priority` and others that may be said once.
    pub(crate) said: Vec<String>,
    /// What is worth knowing of a rule that is taken.
    pub(crate) notes: Vec<Fault>,
}

impl Builder {
    /// With the header alone.
    pub(crate) fn new(
        action: Action,
        protocol: Protocol,
        arrow: Arrow,
        ends: (Addresses, Ports, Addresses, Ports),
    ) -> Self {
        let (source, source_ports, destination, destination_ports) = ends;
        let rule = Rule {
            action,
            protocol,
            source,
            source_ports,
            destination,
            destination_ports,
            arrow,
            ways: Ways { to_server: true, to_client: true },
            sid: 0,
            gid: 1,
            rev: 0,
            msg: String::new(),
            classtype: None,
            category: String::new(),
            priority: 0,
            references: Vec::new(),
            metadata: Vec::new(),
            target_source: None,
            noalert: action == Action::Pass,
            bypass: false,
            flow: FlowTest::default(),
            headers: Vec::new(),
            transaction: Vec::new(),
            sections: Vec::new(),
            variables: 0,
            state: Vec::new(),
            threshold: None,
            detection_filter: None,
            prefilter: false,
            kind: Kind::Packet,
            of_packet: false,
            of_stream: false,
            file: None,
            line: 0,
        };
        Builder {
            rule,
            sticky: None,
            last_content: None,
            last_section: None,
            fast: None,
            waiting: Vec::new(),
            names: Vec::new(),
            said: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Notes that an option was given that may be given once.
    pub(crate) fn once(&mut self, field: &str) -> Result<(), Fault> {
        if self.said.iter().any(|s| s == field) {
            return Err(Fault::new(field, "is given twice"));
        }
        self.said.push(field.to_string());
        Ok(())
    }

    fn new_section(&mut self, place: Place, transforms: Vec<Transform>) -> Result<usize, Fault> {
        if self.rule.sections.len() >= MOST_SECTIONS {
            return Err(Fault::new("rule", format!("looks into more than {MOST_SECTIONS} buffers")));
        }
        self.rule.sections.push(Section { place, transforms, tests: Vec::new(), way: None, fast: None });
        Ok(self.rule.sections.len() - 1)
    }

    /// The section of a place without transforms: the one that is there, or a new one.
    fn plain_section(&mut self, place: Place) -> Result<usize, Fault> {
        let same = |s: &Section| s.place == place && s.transforms.is_empty();
        match self.rule.sections.iter().position(same) {
            Some(index) => Ok(index),
            None => self.new_section(place, Vec::new()),
        }
    }

    /// Puts a sticky buffer in force. One that a transaction has several of is another each time.
    pub(crate) fn stick(&mut self, place: Place) -> Result<(), Fault> {
        self.waiting.clear();
        let many = matches!(place, Place::App(buffer) if buffer.is_multiple());
        let again = matches!(place, Place::Base64);
        self.sticky = Some(if many || again {
            self.new_section(place, Vec::new())?
        } else {
            self.plain_section(place)?
        });
        Ok(())
    }

    /// `pkt_data`: the payload again.
    pub(crate) fn unstick(&mut self) {
        self.sticky = None;
        self.waiting.clear();
    }

    /// A transform of what the sticky buffer holds.
    pub(crate) fn transform(&mut self, field: &str, transform: Transform) -> Result<(), Fault> {
        if self.sticky.is_none() {
            return Err(Fault::new(field, "has no sticky buffer before it that it could transform"));
        }
        self.waiting.push(transform);
        Ok(())
    }

    /// The section that the next test belongs to. What is relative goes on where the last test was, unless a
    /// sticky buffer is in force.
    pub(crate) fn section(&mut self, relative: bool) -> Result<usize, Fault> {
        let Some(sticky) = self.sticky else {
            return match self.last_section.filter(|_| relative) {
                Some(index) => Ok(index),
                None => self.plain_section(Place::Payload),
            };
        };
        if self.waiting.is_empty() {
            return Ok(sticky);
        }
        // What was asked before the transform was asked of the bytes as they were.
        let waiting = std::mem::take(&mut self.waiting);
        let current = &mut self.rule.sections[sticky];
        if current.tests.is_empty() {
            current.transforms.extend(waiting);
            return Ok(sticky);
        }
        let mut transforms = current.transforms.clone();
        let place = current.place;
        transforms.extend(waiting);
        let index = self.new_section(place, transforms)?;
        self.sticky = Some(index);
        Ok(index)
    }

    /// Adds a test.
    pub(crate) fn test(&mut self, test: Test, relative: bool) -> Result<(), Fault> {
        let section = self.section(relative)?;
        self.test_in(section, test)
    }

    /// Adds a test to a buffer of its own, whatever is sticky (`pcre` with a letter, `uricontent`, `urilen`).
    pub(crate) fn test_of(&mut self, buffer: Buffer, test: Test) -> Result<(), Fault> {
        let section = self.plain_section(Place::App(buffer))?;
        self.test_in(section, test)
    }

    fn test_in(&mut self, section: usize, test: Test) -> Result<(), Fault> {
        let tests = &mut self.rule.sections[section].tests;
        if tests.len() >= MOST_TESTS {
            return Err(Fault::new("rule", format!("asks one buffer more than {MOST_TESTS} things")));
        }
        if matches!(test, Test::Content(_)) {
            self.last_content = Some((section, tests.len()));
        }
        tests.push(test);
        self.last_section = Some(section);
        Ok(())
    }

    /// The content that a modifier modifies.
    pub(crate) fn content(&mut self, field: &str) -> Result<&mut Content, Fault> {
        let missing = || Fault::new(field, "has no `content` before it");
        let (section, test) = self.last_content.ok_or_else(missing)?;
        match self.rule.sections.get_mut(section).and_then(|s| s.tests.get_mut(test)) {
            Some(Test::Content(content)) => Ok(content),
            _ => Err(missing()),
        }
    }

    /// Moves the last content to the buffer that an old modifier names.
    pub(crate) fn move_content(&mut self, field: &str, buffer: Buffer) -> Result<(), Fault> {
        self.content(field)?;
        if self.sticky.is_some() {
            return Err(Fault::new(field, "follows a sticky buffer; put `pkt_data` before its `content`"));
        }
        let Some((section, test)) = self.last_content else { return Ok(()) };
        if self.rule.sections[section].place != Place::Payload {
            return Err(Fault::new(field, "is for a `content` that has a buffer already"));
        }
        let moved = self.rule.sections[section].tests.remove(test);
        let asked = self.fast.filter(|(place, _)| *place == (section, test));
        if let Some((place, _)) = self.fast.as_mut()
            && place.0 == section
            && place.1 > test
        {
            place.1 -= 1;
        }
        self.test_of(buffer, moved)?;
        if let (Some((_, asked)), Some(place)) = (asked, self.last_content) {
            self.fast = Some((place, asked));
        }
        Ok(())
    }

    /// `fast_pattern`.
    pub(crate) fn ask_fast(&mut self, asked: Asked) -> Result<(), Fault> {
        self.content("fast_pattern")?;
        if self.fast.is_some() {
            return Err(Fault::new("fast_pattern", "is given for two contents"));
        }
        self.fast = self.last_content.map(|place| (place, asked));
        Ok(())
    }

    /// A variable that is read: a number or a name that was set before.
    pub(crate) fn value(
        &self,
        field: &str,
        text: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Value, Fault> {
        let text = text.trim();
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if let Some(n) = super::compare::number(digits).and_then(|n| i64::try_from(n).ok()) {
            let n = if text.starts_with('-') { -n } else { n };
            return if range.contains(&n) {
                Ok(Value::Is(n))
            } else {
                Err(Fault::new(field, format!("{n} is not in {}..={}", range.start(), range.end())))
            };
        }
        match self.names.iter().position(|name| name == text) {
            Some(index) => Ok(Value::Of(index)),
            None => {
                Err(Fault::new(field, format!("`{text}` is neither a number nor a variable that was set"))
                    .or_nearest(text, self.names.iter().map(String::as_str)))
            }
        }
    }

    /// A variable that is set.
    pub(crate) fn variable(&mut self, field: &str, name: &str) -> Result<usize, Fault> {
        let name = name.trim();
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            return Err(Fault::new(field, format!("`{name}` is not the name of a variable")));
        }
        if let Some(index) = self.names.iter().position(|n| n == name) {
            return Ok(index);
        }
        if self.names.len() >= 64 {
            return Err(Fault::new(field, "more than 64 variables"));
        }
        self.names.push(name.to_string());
        self.rule.variables = self.names.len();
        Ok(self.names.len() - 1)
    }

    /// Adds a test of headers.
    pub(crate) fn header(&mut self, test: HeaderTest) {
        self.rule.headers.push(test);
    }

    /// The rule with its fast pattern noted; buffers that nothing is asked of go.
    pub(crate) fn finish(mut self) -> Result<Rule, Fault> {
        if let Some(((section, test), asked)) = self.fast {
            let Some(Test::Content(content)) = self.rule.sections[section].tests.get(test) else {
                return Err(Fault::new("fast_pattern", "has no content"));
            };
            let whole = content.pattern.len();
            let (from, length) = asked.part.unwrap_or((0, whole));
            if length == 0 || from + length > whole {
                let why = format!("{from},{length} is not within a content of {whole} bytes");
                return Err(Fault::new("fast_pattern", why));
            }
            self.rule.sections[section].fast =
                Some(Fast { test, from, length, asked: true, only: asked.only });
        }
        let empty =
            self.rule.sections.iter().position(|s| s.tests.is_empty() && matches!(s.place, Place::App(_)));
        if let Some(Section { place: Place::App(buffer), .. }) = empty.map(|i| &self.rule.sections[i]) {
            let word = buffer.keyword();
            // A sticky buffer without a test is harmless only when something else is asked.
            if self.rule.sections.iter().all(|s| s.tests.is_empty()) && self.rule.transaction.is_empty() {
                return Err(Fault::new(word, "nothing is asked of this buffer"));
            }
        }
        self.rule.sections.retain(|s| !s.tests.is_empty());
        Ok(self.rule)
    }
}
