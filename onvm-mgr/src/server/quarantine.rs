//! Packets that killed two instances, kept in a capture for whoever wants to know why.

use std::path::Path;

use onvm_lib::capture::{Error, Format, Frame, LinkType, Writer};
use onvm_lib::pool::Note;
use onvm_lib::protocol::InstanceId;

/// Packets that are kept at most: a broken NF and a full wire must not fill the disk.
const MOST: u32 = 1000;

/// The capture, made with the first packet.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    writer: Option<Writer>,
    kept: u32,
}

impl Quarantine {
    /// Appends a packet, with a comment that names the instance that died last.
    ///
    /// # Errors
    /// As [`Writer::write_commented`].
    pub(super) fn keep(
        &mut self,
        path: &Path,
        frame: &[u8],
        note: Note,
        instance: InstanceId,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if self.kept >= MOST {
            return Err(format!("{MOST} are kept already").into());
        }
        if self.writer.is_none() {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let mut writer = Writer::create_as(path, Format::PcapNg)?;
            writer.add_interface(LinkType::Ethernet, "quarantine")?;
            self.writer = Some(writer);
        }
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let frame = Frame {
            timestamp_ns: note.timestamp_ns,
            original_len: note.wire_length.max(length),
            link_type: LinkType::Ethernet,
            interface: 0,
            data: frame,
        };
        let comment = format!("in the hands of two instances when they died, the last of them {instance}");
        if let Some(writer) = &mut self.writer {
            writer.write_commented(&frame, &comment)?;
            writer.flush()?;
            self.kept += 1;
        }
        Ok(())
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.writer.take().map_or(Ok(()), Writer::finish)
    }
}
