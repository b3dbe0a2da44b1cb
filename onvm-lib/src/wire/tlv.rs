//! The walk that IPv4 and TCP options share.
//!
//! Both are lists of one kind byte, and for all but kinds 0 (end of list) and 1 (no operation) a length byte
//! that counts the two and the data (RFC 791 §3.1, RFC 9293 §3.1).

/// One step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Kind 0. Nothing after it counts.
    End,
    /// Kind 1.
    Nop,
    /// Any other kind with the data after its length byte.
    Option { kind: u8, data: &'a [u8] },
    /// A length below 2 or beyond the end: where the next option begins is not known. The rest as it stands.
    Broken { kind: u8, rest: &'a [u8] },
}

/// The options that are left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    pub(super) fn new(options: &'a [u8]) -> Self {
        Walk { rest: options }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (&kind, after) = self.rest.split_first()?;
        match kind {
            0 => {
                self.rest = &[];
                Some(Step::End)
            }
            1 => {
                self.rest = after;
                Some(Step::Nop)
            }
            _ => {
                let len = after.first().map_or(0, |len| usize::from(*len));
                let Some(data) = self.rest.get(2..len) else {
                    let rest = std::mem::take(&mut self.rest);
                    return Some(Step::Broken { kind, rest });
                };
                self.rest = &self.rest[len..];
                Some(Step::Option { kind, data })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_and_stops() {
        let mut walk = Walk::new(&[1, 5, 3, 9, 0, 7]);
        assert_eq!(walk.next(), Some(Step::Nop));
        assert_eq!(walk.next(), Some(Step::Option { kind: 5, data: &[9] }));
        assert_eq!(walk.next(), Some(Step::End));
        assert_eq!(walk.next(), None);
    }

    #[test]
    fn broken_lengths_end_the_walk() {
        for bytes in [&[5u8, 1, 1][..], &[5, 0], &[5], &[5, 4, 1]] {
            let mut walk = Walk::new(bytes);
            assert_eq!(walk.next(), Some(Step::Broken { kind: 5, rest: bytes }));
            assert_eq!(walk.next(), None);
        }
    }
}
