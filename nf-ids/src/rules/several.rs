//! Numbers of which a transaction has several, and which of them are asked: `dns.rrtype:1,0`, `ldap.responses.operation:4,all`,
//! `http2.window:count >5`.
//!
//! ```text
//! value[,index[,from:to]]   index: any, all, all_or_absent, or_absent, nb<compare>, 2, -1, oob_or 2
//! count compare
//! ```
//! They are asked when the transaction is complete, for only then is it known how many there are.

use super::compare::Compare;
use super::refusal::Fault;

/// Which of the numbers must be as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// One of them; of none, this.
    Any(bool),
    /// All of them; of none, this.
    All(bool),
    /// So many of them.
    Times(Compare),
    /// The one at this place, from the end if it is below 0; if there is no such, this.
    At(i64, bool),
}

/// What is asked of several numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Several {
    /// These of them, among those from one place to before another (below 0: from the end), compare so.
    Of(Compare, Which, Option<(i64, i64)>),
    /// There are so many.
    Count(Compare),
}

const WORD: &[&str] = &["any", "all", "all_or_absent", "or_absent", "nb", "oob_or"];
/// Most of a number of numbers.
const MOST: u64 = u32::MAX as u64;

/// A place counted from the end if it is below 0.
fn place(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if at < 0 { length + at } else { at };
    usize::try_from(at).ok()
}

impl Several {
    /// Reads `count >5`; none if it is something else.
    pub(crate) fn count(field: &str, text: &str) -> Option<Result<Self, Fault>> {
        let rest = text.trim().strip_prefix("count")?;
        Some(Compare::parse(field, rest, MOST).map(Several::Count))
    }

    /// Reads what follows the value's comma.
    pub(crate) fn parse(field: &str, compare: Compare, text: &str) -> Result<Self, Fault> {
        let (index, slice) = text.split_once(',').map_or((text, None), |(index, slice)| (index, Some(slice)));
        let index = index.trim();
        let whole = |text: &str| text.trim().parse::<i64>().ok();
        let which = match index {
            "" | "any" => Which::Any(false),
            "or_absent" => Which::Any(true),
            "all" => Which::All(false),
            "all_or_absent" => Which::All(true),
            _ => {
                if let Some(rest) = index.strip_prefix("nb") {
                    Which::Times(Compare::parse(field, rest, MOST)?)
                } else if let Some(at) = index.strip_prefix("oob_or").and_then(whole) {
                    Which::At(at, true)
                } else if let Some(at) = whole(index) {
                    Which::At(at, false)
                } else {
                    let fault = Fault::new(field, format!("`{index}` does not say which of the numbers"));
                    return Err(fault.or_nearest(index, WORD.iter().copied()));
                }
            }
        };
        let slice = slice
            .map(|text| {
                let ends = text.split_once(':').and_then(|(from, to)| Some((whole(from)?, whole(to)?)));
                ends.ok_or_else(|| Fault::new(field, format!("`{}` is not `from:to`", text.trim())))
            })
            .transpose()?;
        Ok(Several::Of(compare, which, slice))
    }

    /// Whether it holds of these numbers.
    #[must_use]
    pub fn holds(self, values: &[u64]) -> bool {
        let (compare, which, slice) = match self {
            Several::Count(compare) => return compare.holds(values.len() as u64),
            Several::Of(compare, which, slice) => (compare, which, slice),
        };
        let values = match slice {
            None => values,
            Some((from, to)) => {
                let ends = place(from, values.len()).zip(place(to, values.len()));
                ends.and_then(|(from, to)| values.get(from..to)).unwrap_or_default()
            }
        };
        let same = |value: &u64| compare.holds(*value);
        match which {
            Which::Any(absent) => values.iter().any(same) || (absent && values.is_empty()),
            Which::All(absent) => values.iter().all(same) && (absent || !values.is_empty()),
            Which::Times(times) => times.holds(values.iter().filter(|value| same(value)).count() as u64),
            Which::At(at, absent) => {
                place(at, values.len()).and_then(|at| values.get(at)).map_or(absent, same)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, values: &[u64]) -> bool {
        if let Some(count) = Several::count("x", text) {
            return count.unwrap().holds(values);
        }
        let (value, rest) = text.split_once(',').unwrap();
        Several::parse("x", Compare::parse("x", value, 100).unwrap(), rest).unwrap().holds(values)
    }

    #[test]
    fn the_numbers_that_are_meant_are_asked() {
        let all = [1, 2, 3, 4, 5, 6];
        for (text, expected) in [
            ("2,any", true),
            ("7,", false),
            ("2,1", true),
            ("2,0", false),
            ("6,-1", true),
            ("6,-9", false),
            (">0,all", true),
            (">1,all", false),
            (">3,nb=3", true),
            (">3,nb>3", false),
            ("3,0,2:4", true),
            ("5,-1,-4:-1", true),
            ("6,any,3:-1", false),
            (">3,all,3:9", false),
            ("9,oob_or 7", true),
            ("9,7", false),
            ("count >5", true),
            ("count 5", false),
        ] {
            assert_eq!(holds(text, &all), expected, "{text}");
        }
        for (text, expected) in
            [("1,all", false), ("1,all_or_absent", true), ("1,or_absent", true), ("1,any", false)]
        {
            assert_eq!(holds(text, &[]), expected, "{text} of none");
        }
    }

    #[test]
    fn what_does_not_say_which_is_refused() {
        for text in ["every", "1.5", "nb", "any,1", "any,a:b"] {
            assert!(Several::parse("x", Compare::Equal(1), text).is_err(), "{text}");
        }
    }
}
