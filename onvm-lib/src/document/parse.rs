//! From text to the tree.
//!
//! The crate's parser gives events with places. The tree is built with a stack of its own, so that depth costs memory
//! that is bounded, not stack; what an alias stands for is copied and counted.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::report::{Report, Severity};
use super::{Key, Node, Place, Value, joined, shortened};

/// Longest file that [`read`] takes, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// Lists and mappings within each other, at most.
pub const MAX_DEPTH: usize = 64;
/// Values and keys in a file that [`read`] takes, at most, with each alias counted as what it stands for.
pub const MAX_NODES: usize = 1_000_000;

/// How much a file may hold. A value or key takes about 100 bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest file, in bytes.
    pub bytes: usize,
    /// Values and keys at most, with each alias counted as what it stands for.
    pub nodes: usize,
}

/// Reads a file's text. What is wrong goes into `report`; none where YAML itself is broken, or a bound is passed. An
/// empty file is [`Value::Null`].
#[must_use]
pub fn read(text: &str, report: &Report) -> Option<Node> {
    read_within(Bounds { bytes: MAX_BYTES, nodes: MAX_NODES }, text, report)
}

/// As [`read`], with bounds of the caller's: for files that are long by their nature, as lists of rules.
#[must_use]
pub fn read_within(bounds: Bounds, text: &str, report: &Report) -> Option<Node> {
    if text.len() > bounds.bytes {
        let message = format!("{} bytes are more than {}", text.len(), bounds.bytes);
        report.add(Severity::Error, None, "", message);
        return None;
    }
    let mut builder = Builder::new(bounds.nodes, report);
    // A byte order mark is no text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(wrong) = text.char_indices().find(|(_, c)| *c == '\0') {
        let line = 1 + text[..wrong.0].matches('\n').count();
        report.add(Severity::Error, Some(Place { line, column: 1 }), "", "a zero byte: this is no text");
        return None;
    }
    if let Some(place) = too_deep(text) {
        builder.refuse(place, &format!("lists and mappings are nested deeper than {MAX_DEPTH}"));
        return None;
    }
    for event in Parser::new_from_str(text) {
        let fed = match event {
            Ok((event, span)) => builder.feed(event, span),
            Err(error) => Err((place(*error.marker()), error.info().to_string())),
        };
        if let Err((place, message)) = fed {
            builder.refuse(place, &message);
            return None;
        }
    }
    Some(builder.root.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Value::Null }))
}

/// Where more flow brackets in a row are open than any file needs: the scanner keeps a record for each, and looks
/// through all of them at every token.
fn too_deep(text: &str) -> Option<Place> {
    let mut open = 0usize;
    for (number, line) in text.lines().enumerate() {
        for (column, c) in line.chars().enumerate() {
            match c {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => continue,
            }
            // Brackets in texts and comments count, too, so this bound is a wide one.
            if open > MAX_DEPTH * 64 {
                return Some(Place { line: number + 1, column: column + 1 });
            }
        }
    }
    None
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or mapping that is not complete yet.
struct Open {
    place: Place,
    anchor: usize,
    /// Its name in messages.
    name: String,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Mapping { entries: Vec<(Key, Node)>, key: Option<Key>, seen: HashMap<String, usize>, twice: bool },
}

struct Builder<'a> {
    report: &'a Report,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    most: usize,
    documents: usize,
    root: Option<Node>,
}

type Refusal = (Place, String);

impl<'a> Builder<'a> {
    fn new(most: usize, report: &'a Report) -> Self {
        Self { report, open: Vec::new(), anchors: HashMap::new(), nodes: 0, most, documents: 0, root: None }
    }

    fn refuse(&self, place: Place, message: &str) {
        self.report.add(Severity::Error, Some(place), &self.path(), message);
    }

    /// Keys that lead to where the parser is.
    fn path(&self) -> String {
        let names = self.open.iter().map(|o| o.name.as_str()).filter(|n| !n.is_empty());
        names.collect::<Vec<_>>().join(".").replace(".[", "[")
    }

    fn feed(&mut self, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        let place = place(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((place, "a second document: a file has one".into()));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.untagged(place, tag.is_some())?;
                let quoted = style != ScalarStyle::Plain;
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if !quoted => Value::Null,
                    text => Value::Scalar { text: text.to_string(), quoted },
                };
                self.complete(Node { place, value }, anchor, 1)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.untagged(place, tag.is_some())?;
                self.begin(place, anchor, Kind::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.untagged(place, tag.is_some())?;
                let kind =
                    Kind::Mapping { entries: Vec::new(), key: None, seen: HashMap::new(), twice: false };
                self.begin(place, anchor, kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { place, anchor, kind, .. }) = self.open.pop() {
                    let value = match kind {
                        Kind::List(all) => Value::List(all),
                        Kind::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.complete(Node { place, value }, anchor, 1)?;
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((_, size)) if self.nodes + size > self.most => {
                    return Err(too_many(place, self.most));
                }
                Some((node, size)) => {
                    let (node, size) = (Node { place, ..node.clone() }, *size);
                    self.complete(node, 0, size)?;
                }
                None => return Err((place, "an alias for what it is a part of".into())),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn untagged(&self, place: Place, tagged: bool) -> Result<(), Refusal> {
        if tagged { Err((place, "a tag (!): tags have no meaning here".into())) } else { Ok(()) }
    }

    fn begin(&mut self, place: Place, anchor: usize, kind: Kind) -> Result<(), Refusal> {
        if let Some(Open { kind: Kind::Mapping { key: None, twice: false, .. }, .. }) = self.open.last() {
            return Err((place, "a list or mapping as a key: keys are words".into()));
        }
        if self.open.len() == MAX_DEPTH {
            return Err((place, format!("lists and mappings are nested deeper than {MAX_DEPTH}")));
        }
        let name = match self.open.last() {
            Some(Open { kind: Kind::List(all), .. }) => format!("[{}]", all.len()),
            Some(Open { kind: Kind::Mapping { key: Some(key), .. }, .. }) => shortened(&key.text),
            _ => String::new(),
        };
        self.open.push(Open { place, anchor, name, kind });
        Ok(())
    }

    /// A value is complete: it goes into what is open.
    fn complete(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Refusal> {
        self.nodes += size;
        if self.nodes > self.most {
            return Err(too_many(node.place, self.most));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
            // The copy takes room, too.
            self.nodes += count(&node);
        }
        let path = self.path();
        match self.open.last_mut().map(|o| &mut o.kind) {
            None => self.root = Some(node),
            Some(Kind::List(all)) => all.push(node),
            Some(Kind::Mapping { entries, key, seen, twice }) => {
                if *twice {
                    // The value of a key that stands here already: the first one counts.
                    *twice = false;
                } else if let Some(key) = key.take() {
                    entries.push((key, node));
                } else {
                    let Value::Scalar { text, .. } = node.value else {
                        let what = node.value.described();
                        return Err((node.place, format!("{what} as a key: keys are words")));
                    };
                    if let Some(line) = seen.get(&text) {
                        *twice = true;
                        let path = joined(&path, &text);
                        let message = format!("this key stands here already, in line {line}");
                        self.report.add(Severity::Error, Some(node.place), &path, message);
                    } else {
                        seen.insert(text.clone(), node.place.line);
                        *key = Some(Key { place: node.place, text });
                    }
                }
            }
        }
        Ok(())
    }
}

fn too_many(place: Place, most: usize) -> Refusal {
    (place, format!("more than {most} values, each alias counted as what it stands for"))
}

/// Values and keys in a node. Its depth is bounded, so this is.
fn count(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar { .. } => 1,
        Value::List(all) => 1 + all.iter().map(count).sum::<usize>(),
        Value::Mapping(all) => 1 + all.iter().map(|(_, node)| 1 + count(node)).sum::<usize>(),
    }
}
