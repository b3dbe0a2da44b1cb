//! Files that a chain file names.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The absolute path of a file named in a chain file that lies in `directory`. The file itself need not be there.
pub(super) fn resolve(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    match (path.parent().and_then(|parent| parent.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(file)) => parent.join(file),
        // `.`, `..` and the root.
        _ => path.canonicalize().unwrap_or(path),
    }
}

/// Where a program is: beside this one; where it says, seen from `directory`, if it has a slash; in `PATH`.
pub(super) fn program(directory: &Path, name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(resolve(directory, name)).filter(|p| is_program(p));
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|d| d.join(name));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|d| d.join(name)).filter(|p| p.is_absolute());
    beside.into_iter().chain(in_path).find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
