//! State on its way from an NF to its successor: a sealed memory file.
//!
//! ```text
//! byte   0  magic      "onvmstat"
//!        8  version    STATE_VERSION of the NF, u32
//!       12  checksum   CRC-32 of the state, u32
//!       16  length     of the state in bytes, u64
//!       24  name       of the NF, 64 bytes, zeros after it
//!       88  state      postcard (<https://postcard.jamesmunns.com/wire-format>)
//! ```
//! Numbers are little-endian. The reader copies the state out before it checks and decodes it, so what the
//! writer does to the file meanwhile does not matter; whatever stands there, the answer is a state or an error.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 8] = *b"onvmstat";
const NAME: usize = 64;
const HEADER: usize = 24 + NAME;
/// Longest state, in bytes.
const LONGEST: u64 = 2 << 30;

/// Why a state cannot be handed over or read.
#[derive(Debug)]
pub(super) enum StateError {
    Kernel { step: &'static str, error: std::io::Error },
    Encode(postcard::Error),
    Unsealed,
    Short { bytes: u64 },
    Magic,
    Name { theirs: String, ours: &'static str },
    Version { theirs: u32, ours: u32 },
    Length { announced: u64, bytes: u64 },
    Checksum,
    Garbled { reason: String },
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel { step, error } => write!(f, "{step} of the state's file: {error}"),
            Self::Encode(error) => write!(f, "the state cannot be written: {error}"),
            Self::Unsealed => f.write_str("the state is not in a sealed memory file"),
            Self::Short { bytes } => write!(f, "the state's file has {bytes} bytes, its header {HEADER}"),
            Self::Magic => f.write_str("the file is no state of a network function"),
            Self::Name { theirs, ours } => write!(f, "the state is of {theirs}, this is {ours}"),
            Self::Version { theirs, ours } => {
                write!(f, "the state is of version {theirs}, this program reads version {ours}")
            }
            Self::Length { announced, bytes } => {
                write!(f, "the state has {bytes} bytes, {announced} were announced, {LONGEST} are possible")
            }
            Self::Checksum => f.write_str("the state's checksum is wrong"),
            Self::Garbled { reason } => write!(f, "the state makes no sense: {reason}"),
        }
    }
}

fn kernel(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> StateError {
    move |errno| StateError::Kernel { step, error: errno.into() }
}

fn io(step: &'static str) -> impl FnOnce(std::io::Error) -> StateError {
    move |error| StateError::Kernel { step, error }
}

/// Counts and sums up what is written.
struct Summed<W> {
    to: W,
    length: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.length += n as u64;
        self.checksum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

fn padded(name: &str) -> [u8; NAME] {
    let mut field = [0; NAME];
    field.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    field
}

/// Writes a state into a file of its own, and seals that.
pub(super) fn write(name: &str, version: u32, state: &impl Serialize) -> Result<OwnedFd, StateError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("onvm-state", flags).map_err(kernel("memfd_create"))?;
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(kernel("fchmod"))?;
    let mut file = File::from(fd);
    file.write_all(&[0; HEADER]).map_err(io("write"))?;
    let (length, checksum) = stream(&file, state)?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(version.to_le_bytes());
    header.extend(checksum.to_le_bytes());
    header.extend(length.to_le_bytes());
    header.extend(padded(name));
    file.write_all_at(&header, 0).map_err(io("write"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(kernel("fcntl(F_ADD_SEALS)"))?;
    Ok(file.into())
}

/// Writes a state behind the header; its length and checksum.
fn stream(file: &File, state: &impl Serialize) -> Result<(u64, u32), StateError> {
    let summed = Summed { to: file, length: 0, checksum: crc32fast::Hasher::new() };
    let mut buffered = BufWriter::with_capacity(64 << 10, summed);
    postcard::to_io(state, &mut buffered).map_err(StateError::Encode)?;
    buffered.flush().map_err(io("write"))?;
    let Summed { length, checksum, .. } = buffered.get_ref();
    if *length > LONGEST {
        return Err(StateError::Length { announced: *length, bytes: *length });
    }
    Ok((*length, checksum.clone().finalize()))
}

/// Reads the state of an NF of this name and version.
pub(super) fn read<T: DeserializeOwned>(
    name: &'static str,
    version: u32,
    fd: OwnedFd,
) -> Result<T, StateError> {
    // Only a memory file has seals: reading it neither waits nor ends early.
    if !rustix::fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
        return Err(StateError::Unsealed);
    }
    let file = File::from(fd);
    let bytes = file.metadata().map_err(io("fstat"))?.len();
    let Some(bytes) = bytes.checked_sub(HEADER as u64) else { return Err(StateError::Short { bytes }) };
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(io("read"))?;
    let (fixed, theirs_name) = header.split_at(24);
    let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if fixed[..8] != MAGIC {
        return Err(StateError::Magic);
    }
    if theirs_name != padded(name) {
        let theirs = String::from_utf8_lossy(theirs_name);
        let theirs = theirs.trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect();
        return Err(StateError::Name { theirs, ours: name });
    }
    if number(8) != version {
        return Err(StateError::Version { theirs: number(8), ours: version });
    }
    let announced = u64::from(number(16)) | u64::from(number(20)) << 32;
    if announced != bytes || bytes > LONGEST {
        return Err(StateError::Length { announced, bytes });
    }
    let state = copy_of(&file, bytes)?;
    if crc32fast::hash(&state) != number(12) {
        return Err(StateError::Checksum);
    }
    let garbled = |reason: String| StateError::Garbled { reason };
    let (state, rest) = postcard::take_from_bytes(&state).map_err(|e| garbled(e.to_string()))?;
    if !rest.is_empty() {
        return Err(garbled(format!("{} bytes are left over", rest.len())));
    }
    Ok(state)
}

fn copy_of(file: &File, bytes: u64) -> Result<Vec<u8>, StateError> {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut state = Vec::new();
    let room = state.try_reserve_exact(length);
    room.map_err(|_| io("memory for a copy")(std::io::ErrorKind::OutOfMemory.into()))?;
    state.resize(length, 0);
    file.read_exact_at(&mut state, HEADER as u64).map_err(io("read"))?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type State = (BTreeMap<String, Vec<u64>>, Option<std::net::IpAddr>, [u8; 7]);

    fn bytes_of(fd: OwnedFd) -> Vec<u8> {
        let file = File::from(fd);
        let mut all = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut all, 0).unwrap();
        all
    }

    fn sealed(bytes: &[u8]) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        let file = File::from(fd);
        file.write_all_at(bytes, 0).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        file.into()
    }

    fn wrong(bytes: &[u8]) -> String {
        read::<State>("nf-test", 3, sealed(bytes)).unwrap_err().to_string()
    }

    fn sample() -> Vec<u8> {
        let map: BTreeMap<String, Vec<u64>> = [("a".into(), vec![1, u64::MAX])].into();
        let state: State = (map, Some([10, 0, 0, 1].into()), [7; 7]);
        bytes_of(write("nf-test", 3, &state).unwrap())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = sample();
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            wrong(&bad)
        };
        assert!(with(0, b'x').contains("no state of a network function"));
        assert_eq!(with(8, 4), "the state is of version 4, this program reads version 3");
        assert_eq!(with(24, b'm'), "the state is of mf-test, this is nf-test");
        assert!(with(16, 0xff).contains("were announced"));
        assert!(with(good.len() - 1, 0).contains("checksum"));
        assert!(wrong(&good[..good.len() - 1]).contains("were announced"));
        assert!(wrong(&good[..50]).contains("50 bytes"));
        assert!(wrong(&[]).contains("0 bytes"));
        let plain = File::open("/dev/zero").unwrap();
        let error = read::<State>("nf-test", 3, plain.into()).unwrap_err();
        assert!(matches!(error, StateError::Unsealed), "{error}");
        let another = write("nf-test", 3, &(1u8, 2u8, 3u8)).unwrap();
        assert!(matches!(read::<u8>("nf-test", 3, another), Err(StateError::Garbled { .. })));
        let sealed = write("nf-test", 3, &1u8).unwrap();
        assert!(rustix::fs::ftruncate(&sealed, 0).is_err());
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        // A sequence of 2^62 elements in a state of a few bytes, with the right checksum.
        let lie = [0xffu8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
        let mut bytes = bytes_of(write("nf-test", 3, &lie).unwrap());
        assert_eq!(bytes.len(), HEADER + lie.len());
        assert!(wrong(&bytes).contains("makes no sense"));
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(wrong(&bytes).contains("were announced"));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            map in prop::collection::btree_map(".*", prop::collection::vec(any::<u64>(), 0..20), 0..20),
            address in any::<Option<std::net::IpAddr>>(),
            rest in any::<[u8; 7]>(),
        ) {
            let state: State = (map, address, rest);
            let file = write("nf-test", 1, &state).unwrap();
            prop_assert_eq!(read::<State>("nf-test", 1, file).unwrap(), state);
        }

        #[test]
        fn nonsense_is_an_error_and_no_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            checksum_right in any::<bool>(),
        ) {
            let good = sample();
            // Often with a header that is right, so that the decoder gets to see the nonsense.
            if checksum_right {
                let mut all = good[..HEADER].to_vec();
                all[12..16].copy_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
                all[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
                all.append(&mut bytes);
                bytes = all;
            }
            if let Ok(state) = read::<State>("nf-test", 3, sealed(&bytes)) {
                prop_assert_eq!(bytes_of(write("nf-test", 3, &state).unwrap()).len(), bytes.len());
            }
        }
    }
}
