//! Everything that a network function needs, and all that it may import.

pub use crate::packet::{Access, Burst, DropReason, MAX_BURST, Packet, ReadOnly, ReadWrite, Verdict};
pub use crate::protocol::{InstanceId, Message, MessageError, ServiceId, Target};
pub use crate::runtime::{
    Control, ControlError, NetworkFunction, NoOptions, Printer, Report, Setup, SetupError,
};
pub use crate::{capture, run, wire};
