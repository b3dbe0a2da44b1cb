//! The glue: a frame with its time goes in, a verdict comes out.

/// When TCP data is put in order and inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// When the receiver has acknowledged it: for looking on.
    #[default]
    Ids,
    /// As it arrives: for deciding about packets.
    Inline,
}
