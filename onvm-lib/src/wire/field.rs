//! Fields at fixed places: the one room where single header bytes are read and written.
//!
//! Every view in this folder is declared with the macros below, so that each field has a getter and a
//! setter by construction and the two cannot disagree about its place. All fields are big-endian
//! ("network byte order", RFC 1700). A view's `new_checked` has proved that its fixed header is there, so
//! the indexing here cannot fail for one that exists.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Error;

/// A value with a fixed size in a header.
pub(super) trait Field: Copy {
    /// Reads it at byte `at`.
    fn read(bytes: &[u8], at: usize) -> Self;
    /// Writes it at byte `at`.
    fn write(self, bytes: &mut [u8], at: usize);
}

/// The `N` bytes at `at`.
#[inline]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

macro_rules! integer_fields {
    ($($ty:ident: $len:literal),*) => { $(
        impl Field for $ty {
            #[inline]
            fn read(bytes: &[u8], at: usize) -> Self {
                Self::from_be_bytes(array(bytes, at))
            }
            #[inline]
            fn write(self, bytes: &mut [u8], at: usize) {
                bytes[at..at + $len].copy_from_slice(&self.to_be_bytes());
            }
        }
    )* };
}
integer_fields!(u8: 1, u16: 2, u32: 4, u64: 8);

impl<const N: usize> Field for [u8; N] {
    #[inline]
    fn read(bytes: &[u8], at: usize) -> Self {
        array(bytes, at)
    }
    #[inline]
    fn write(self, bytes: &mut [u8], at: usize) {
        bytes[at..at + N].copy_from_slice(&self);
    }
}

impl Field for Ipv4Addr {
    #[inline]
    fn read(bytes: &[u8], at: usize) -> Self {
        Self::from(array::<4>(bytes, at))
    }
    #[inline]
    fn write(self, bytes: &mut [u8], at: usize) {
        self.octets().write(bytes, at);
    }
}

impl Field for Ipv6Addr {
    #[inline]
    fn read(bytes: &[u8], at: usize) -> Self {
        Self::from(array::<16>(bytes, at))
    }
    #[inline]
    fn write(self, bytes: &mut [u8], at: usize) {
        self.octets().write(bytes, at);
    }
}

/// The big-endian `u16` at `at`, if both bytes are there.
#[inline]
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

/// The big-endian `u32` at `at`, if all four bytes are there.
#[inline]
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let quad = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*quad))
}

/// That `bytes` holds at least `need` bytes of the header called `header`.
#[inline]
pub(super) fn need(header: &'static str, bytes: &[u8], need: usize) -> Result<(), Error> {
    if bytes.len() < need {
        return Err(Error::Truncated { header, need, have: bytes.len() });
    }
    Ok(())
}

/// Declares a view: a struct over a buffer with `new_checked`, which asks the view's own `check` for what
/// goes beyond the length of the fixed header.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident, $label:literal, $min:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T> {
            buffer: T,
        }

        impl<T: AsRef<[u8]>> $name<T> {
            /// A view of the header that begins at the first byte of `buffer`. Bytes after the header are
            /// its payload; a variable part that was cut off is no error, the accessors give what is there.
            ///
            /// # Errors
            /// [`Error::Truncated`](crate::wire::Error::Truncated) if the fixed header is not all there,
            /// [`Error::Field`](crate::wire::Error::Field) if a version or length field makes it unreadable.
            #[inline]
            pub fn new_checked(buffer: T) -> Result<Self, crate::wire::Error> {
                crate::wire::field::need($label, buffer.as_ref(), $min)?;
                let view = Self { buffer };
                view.check()?;
                Ok(view)
            }

            /// Header and payload, as they stand.
            #[inline]
            pub fn as_bytes(&self) -> &[u8] {
                self.buffer.as_ref()
            }

            /// Gives the buffer back.
            pub fn into_inner(self) -> T {
                self.buffer
            }
        }
    };
}

/// Declares whole-byte fields: `name / set_name: type @ offset;`.
macro_rules! fields {
    ($view:ident { $($(#[$doc:meta])* $get:ident / $set:ident: $ty:ty = $at:expr;)* }) => {
        impl<T: AsRef<[u8]>> $view<T> { $(
            $(#[$doc])*
            #[inline]
            pub fn $get(&self) -> $ty {
                <$ty as crate::wire::field::Field>::read(self.buffer.as_ref(), $at)
            }
        )* }
        impl<T: AsRef<[u8]> + AsMut<[u8]>> $view<T> { $(
            #[doc = concat!("Sets [`", stringify!($get), "`](Self::", stringify!($get), ").")]
            #[inline]
            pub fn $set(&mut self, value: $ty) {
                <$ty as crate::wire::field::Field>::write(value, self.buffer.as_mut(), $at);
            }
        )* }
    };
}

/// Declares fields of some bits of an integer: `name / set_name: type @ offset, >> shift & mask;`. A setter
/// drops the bits of its value that do not fit.
macro_rules! bits {
    ($view:ident { $($(#[$doc:meta])* $get:ident / $set:ident: $ty:ty = $at:expr, >> $shift:literal & $mask:literal;)* }) => {
        impl<T: AsRef<[u8]>> $view<T> { $(
            $(#[$doc])*
            #[inline]
            pub fn $get(&self) -> $ty {
                (<$ty as crate::wire::field::Field>::read(self.buffer.as_ref(), $at) >> $shift) & $mask
            }
        )* }
        impl<T: AsRef<[u8]> + AsMut<[u8]>> $view<T> { $(
            #[doc = concat!("Sets [`", stringify!($get), "`](Self::", stringify!($get), "), which is ",
                stringify!($mask), " at most: higher bits are dropped.")]
            #[inline]
            pub fn $set(&mut self, value: $ty) {
                let old = <$ty as crate::wire::field::Field>::read(self.buffer.as_ref(), $at);
                let new = (old & !($mask << $shift)) | ((value & $mask) << $shift);
                <$ty as crate::wire::field::Field>::write(new, self.buffer.as_mut(), $at);
            }
        )* }
    };
}

/// Declares one-bit fields: `name / set_name: bit of type @ offset, bit number (0 is the least);`.
macro_rules! flags {
    ($view:ident { $($(#[$doc:meta])* $get:ident / $set:ident: $ty:ty = $at:expr, bit $bit:literal;)* }) => {
        impl<T: AsRef<[u8]>> $view<T> { $(
            $(#[$doc])*
            #[inline]
            pub fn $get(&self) -> bool {
                (<$ty as crate::wire::field::Field>::read(self.buffer.as_ref(), $at) >> $bit) & 1 == 1
            }
        )* }
        impl<T: AsRef<[u8]> + AsMut<[u8]>> $view<T> { $(
            #[doc = concat!("Sets [`", stringify!($get), "`](Self::", stringify!($get), ").")]
            #[inline]
            pub fn $set(&mut self, value: bool) {
                let old = <$ty as crate::wire::field::Field>::read(self.buffer.as_ref(), $at);
                let new = (old & !(1 << $bit)) | (<$ty>::from(value) << $bit);
                <$ty as crate::wire::field::Field>::write(new, self.buffer.as_mut(), $at);
            }
        )* }
    };
}

pub(super) use {bits, fields, flags, view};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_big_endian() {
        let mut bytes = [0u8; 8];
        0x0102u16.write(&mut bytes, 1);
        0x0a0b_0c0du32.write(&mut bytes, 4);
        assert_eq!(bytes, [0, 1, 2, 0, 0x0a, 0x0b, 0x0c, 0x0d]);
        assert_eq!(u16::read(&bytes, 1), 0x0102);
        assert_eq!(be32(&bytes, 4), Some(0x0a0b_0c0d));
        assert_eq!(be32(&bytes, 5), None);
        assert_eq!(be16(&bytes, usize::MAX), None);
    }
}
