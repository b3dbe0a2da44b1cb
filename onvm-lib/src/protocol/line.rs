//! The socket: messages with descriptors, both ways.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PROTOCOL_VERSION;

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 160 << 10;
/// Most descriptors that ride with one message.
const MAX_DESCRIPTORS: usize = 250;
/// Bytes that the kernel may queue on a line before the sender is told to wait.
const SEND_BUFFER: usize = 1 << 20;

/// What can go wrong on a line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the socket.
    NobodyThere {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A manager listens there already.
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The kernel refused a step.
    Kernel {
        /// The system call.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The other side has gone.
    Closed,
    /// Nothing to read now, or no room to write.
    WouldBlock,
    /// A message that is no message.
    Garbled {
        /// Why.
        reason: String,
    },
    /// A first message of another [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION), which is not understood.
    Version {
        /// The other side's.
        theirs: u32,
    },
    /// A message longer than [`MAX_MESSAGE`].
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NobodyThere { path, errno } => write!(
                f,
                "no manager at {}: {errno} (start onvm-mgr, or name its socket with --socket or ONVM_SOCKET)",
                path.display()
            ),
            Self::InUse { path } => write!(
                f,
                "a manager is already running at {} (stop it, or choose another socket with --socket)",
                path.display()
            ),
            Self::Kernel { step, errno } => write!(f, "{step}: {errno}"),
            Self::Closed => f.write_str("the other side closed the control socket"),
            Self::WouldBlock => f.write_str("the control socket is not ready"),
            Self::Garbled { reason } => write!(f, "message on the control socket makes no sense: {reason}"),
            Self::Version { theirs } => write!(
                f,
                "protocol versions differ, {theirs} where it was sent, {PROTOCOL_VERSION} where it was read: use \
                 programs of one release"
            ),
            Self::TooLong { length } => {
                write!(f, "message of {length} bytes is longer than the {MAX_MESSAGE} allowed")
            }
        }
    }
}

impl std::error::Error for Error {}

fn kernel(step: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| match errno {
        Errno::AGAIN => Error::WouldBlock,
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Error::Closed,
        errno => Error::Kernel { step, errno },
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Process id, as this process sees it.
    pub pid: Option<rustix::process::Pid>,
    /// User id.
    pub uid: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Line {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Line {
    /// Connects to a manager.
    ///
    /// # Errors
    /// [`Error::NobodyThere`] when no manager listens there.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let nobody = |errno| Error::NobodyThere { path: path.to_path_buf(), errno };
        let fd = new_socket()?;
        let address = SocketAddrUnix::new(path).map_err(nobody)?;
        net::connect(&fd, &address).map_err(nobody)?;
        Ok(Self::over(fd))
    }

    fn over(fd: OwnedFd) -> Self {
        // Refused beyond net.core.wmem_max without privilege; messages fit the default buffer too.
        let _ = net::sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
        Self { fd, buffer: vec![0; MAX_MESSAGE] }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn peer(&self) -> Result<Peer, Error> {
        let credentials =
            net::sockopt::socket_peercred(&self.fd).map_err(kernel("getsockopt(SO_PEERCRED)"))?;
        Ok(Peer { pid: Some(credentials.pid), uid: credentials.uid.as_raw() })
    }

    /// Sends a message and the descriptors that belong to it.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Closed`], [`Error::Kernel`]; with `wait` false also [`Error::WouldBlock`].
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>], wait: bool) -> Result<(), Error> {
        let bytes = serde_json::to_vec(message).map_err(|e| Error::Garbled { reason: e.to_string() })?;
        if bytes.len() > MAX_MESSAGE || fds.len() > MAX_DESCRIPTORS {
            return Err(Error::TooLong { length: bytes.len() });
        }
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        let mut flags = SendFlags::NOSIGNAL;
        if !wait {
            flags |= SendFlags::DONTWAIT;
        }
        loop {
            match net::sendmsg(&self.fd, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                other => return other.map(|_| ()).map_err(kernel("sendmsg")),
            }
        }
    }

    /// Receives a message and the descriptors that came with it.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end, [`Error::Garbled`] for what is no message; with `wait` false also
    /// [`Error::WouldBlock`].
    pub fn receive<M: DeserializeOwned>(&mut self, wait: bool) -> Result<(M, Vec<OwnedFd>), Error> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        if !wait {
            flags |= RecvFlags::DONTWAIT;
        }
        let got = loop {
            let mut into = [IoSliceMut::new(&mut self.buffer)];
            match net::recvmsg(&self.fd, &mut into, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                other => break other.map_err(kernel("recvmsg"))?,
            }
        };
        let mut fds = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return Err(Error::Closed);
        }
        if got.flags.intersects(net::ReturnFlags::TRUNC | net::ReturnFlags::CTRUNC) {
            return Err(Error::Garbled { reason: "it was cut short".into() });
        }
        match serde_json::from_slice(&self.buffer[..got.bytes]) {
            Ok(message) => Ok((message, fds)),
            Err(error) => Err(misunderstood(&self.buffer[..got.bytes], &error)),
        }
    }

    /// Ends the connection for both directions, while others still hold the descriptor.
    pub fn shut_down(&self) {
        let _ = net::shutdown(&self.fd, net::Shutdown::Both);
    }

    /// A second handle to the same connection, for a thread that only sends.
    ///
    /// # Errors
    /// [`Error::Kernel`] when descriptors have run out.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 3).map_err(kernel("fcntl(F_DUPFD_CLOEXEC)"))?;
        Ok(Self { fd, buffer: vec![0; MAX_MESSAGE] })
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a message is not understood: perhaps it is of another version.
#[cold]
fn misunderstood(message: &[u8], error: &serde_json::Error) -> Error {
    /// What the first messages of all versions have.
    #[derive(serde::Deserialize)]
    struct First {
        say: Option<String>,
        answer: Option<String>,
        version: u32,
    }
    let first = serde_json::from_slice::<First>(message).ok();
    let other = first.filter(|f| {
        let kind = f.say.as_deref().or(f.answer.as_deref());
        f.version != PROTOCOL_VERSION && matches!(kind, Some("hello" | "ask" | "welcome"))
    });
    match other {
        Some(First { version, .. }) => Error::Version { theirs: version },
        None => Error::Garbled { reason: error.to_string() },
    }
}

fn new_socket() -> Result<OwnedFd, Error> {
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(kernel("socket"))
}

/// The manager's end: takes connections, and takes its name out of the file system when dropped.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Dropped last: until then nobody else may use the path.
    _lock: Lock,
}

impl Listener {
    /// Listens at a path, with mode 0600. A socket left over by a manager that died is replaced; a live one is not.
    /// Of several that come to a stale socket at once, one wins: whoever has locked `PATH.lock`.
    ///
    /// # Errors
    /// [`Error::InUse`] when a manager listens there, [`Error::Kernel`] when the path cannot be used.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        use rustix::fs::Mode;
        let fd = new_socket()?;
        let address = SocketAddrUnix::new(path).map_err(kernel("socket path"))?;
        let lock = Lock::take(path)?;
        // The mode must be right from the first moment on. That of an unbound socket becomes that of its name
        // (unix_bind in the kernel's net/unix/af_unix.c); a mask would be the whole process's.
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(kernel("fchmod of the control socket"))?;
        let mut bound = net::bind(&fd, &address);
        if bound == Err(Errno::ADDRINUSE) {
            // Whoever made it without a lock may still be there.
            if Line::connect(path).is_ok() {
                return Err(Error::InUse { path: path.to_path_buf() });
            }
            let is_socket = std::fs::symlink_metadata(path)
                .is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()));
            if is_socket && std::fs::remove_file(path).is_ok() {
                bound = net::bind(&fd, &address);
            }
        }
        bound.map_err(kernel("bind of the control socket"))?;
        net::listen(&fd, 128).map_err(kernel("listen"))?;
        Ok(Self { fd, path: path.to_path_buf(), _lock: lock })
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// [`Error::Kernel`], for example when descriptors have run out.
    pub fn accept(&self) -> Result<Line, Error> {
        let fd = net::accept_with(&self.fd, SocketFlags::CLOEXEC).map_err(kernel("accept"))?;
        Ok(Line::over(fd))
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The right to a socket path: an exclusive `flock` on the file beside it, which ends with its holder however that
/// ends.
#[derive(Debug)]
struct Lock {
    _fd: OwnedFd,
    path: PathBuf,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, Error> {
        use rustix::fs::{FlockOperation, Mode, OFlags};
        let mut path = socket.as_os_str().to_os_string();
        path.push(".lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(kernel("open of the control socket's lock"))?;
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(Error::InUse { path: socket.to_path_buf() }),
                locked => locked.map_err(kernel("flock of the control socket's lock"))?,
            }
            // Its holder before us may have removed the file between our two steps: then the lock is on nothing.
            if rustix::fs::fstat(&fd).map_err(kernel("fstat"))?.st_nlink > 0 {
                return Ok(Self { _fd: fd, path: path.into() });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever has opened the file sees that it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Request, Say};
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(Error::InUse { .. })));
        let client = Line::connect(&path).unwrap();
        let mut server = listener.accept().unwrap();
        let ask = Say::Ask { version: PROTOCOL_VERSION, request: Request::Status };
        let file = std::fs::File::open("/dev/null").unwrap();
        client.send(&ask, &[file.as_fd(), file.as_fd()], true).unwrap();
        let (said, fds): (Say, _) = server.receive(true).unwrap();
        assert_eq!((said, fds.len()), (ask, 2));
        assert!(matches!(server.receive::<Say>(false), Err(Error::WouldBlock)));
        assert_eq!(server.peer().unwrap().pid, Some(rustix::process::getpid()));
        net::send(&client.fd, b"{\"say\":\"nonsense\"}", SendFlags::empty()).unwrap();
        assert!(matches!(server.receive::<Say>(true), Err(Error::Garbled { .. })));
        let long = Answer::Refused { reason: "x".repeat(MAX_MESSAGE) };
        assert!(matches!(server.send(&long, &[], true), Err(Error::TooLong { .. })));
        drop(client);
        assert!(matches!(server.receive::<Say>(true), Err(Error::Closed)));
    }

    #[test]
    fn the_socket_is_private_replaced_when_stale_and_removed_at_the_end() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let left_over = new_socket().unwrap();
        net::bind(&left_over, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(listener);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the lock is removed, too");
        std::fs::write(&path, "a file of the user's").unwrap();
        assert!(Listener::bind(&path).is_err());
        assert!(path.exists(), "what is not a socket is not removed");
        assert!(matches!(Line::connect(&path), Err(Error::NobodyThere { .. })));
    }

    #[test]
    fn one_of_many_gets_a_stale_socket() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s");
            net::bind(new_socket().unwrap(), &SocketAddrUnix::new(&path).unwrap()).unwrap();
            let barrier = std::sync::Barrier::new(8);
            let bind = || {
                barrier.wait();
                let bound = Listener::bind(&path);
                // Winners stay until all have tried.
                barrier.wait();
                assert!(matches!(bound, Ok(_) | Err(Error::InUse { .. })), "{bound:?}");
                bound.is_ok()
            };
            let won = std::thread::scope(|scope| {
                let all: Vec<_> = (0..8).map(|_| scope.spawn(bind)).collect();
                all.into_iter().map(|t| usize::from(t.join().unwrap())).sum::<usize>()
            });
            assert_eq!(won, 1);
        }
    }

    #[test]
    fn another_version_is_named_even_if_its_messages_are_not_understood() {
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&directory.path().join("s")).unwrap();
        let client = Line::connect(listener.path()).unwrap();
        let mut server = listener.accept().unwrap();
        let mut heard = |message: &str| {
            net::send(&client.fd, message.as_bytes(), SendFlags::empty()).unwrap();
            server.receive::<Say>(true).unwrap_err().to_string()
        };
        let other = heard(r#"{"say":"hello","version":7,"services":[1],"new":{"field":1}}"#);
        assert!(other.contains("7 where") && other.contains(&PROTOCOL_VERSION.to_string()), "{other}");
        let same = format!(r#"{{"say":"hello","version":{PROTOCOL_VERSION}}}"#);
        assert!(heard(&same).contains("missing field"));
        assert!(heard(r#"{"say":"routed","version":"x"}"#).contains("makes no sense"));
    }
}
