//! A packet in words, the way tcpdump writes it.
use super::Headers;
use std::fmt;
/// A packet in words.
pub fn describe(frame: &[u8]) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| write!(f, "{:?}", Headers::parse(frame)))
}
