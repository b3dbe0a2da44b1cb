//! Where the control socket is.

use std::path::{Path, PathBuf};

/// Name of the environment variable that names the socket.
const VARIABLE: &str = "ONVM_SOCKET";

/// The socket used when none is named: `$ONVM_SOCKET`, else `onvm.sock` in `$XDG_RUNTIME_DIR`, in `/run` for
/// root, and `/tmp/onvm-UID.sock` for others.
#[must_use]
pub fn default_socket() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        return named.into();
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|d| d.is_dir());
    if let Some(directory) = runtime {
        return directory.join("onvm.sock");
    }
    let user = rustix::process::geteuid();
    if user.is_root() { "/run/onvm.sock".into() } else { format!("/tmp/onvm-{}.sock", user.as_raw()).into() }
}

/// The socket named on the command line, else the default.
#[must_use]
pub fn socket_from(named: Option<&Path>) -> PathBuf {
    named.map_or_else(default_socket, Path::to_path_buf)
}
