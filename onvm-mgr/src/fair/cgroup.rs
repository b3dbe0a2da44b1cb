//! Shares as weights of cgroup v2, where a group was delegated to the manager.
//!
//! ```text
//! <the manager's group>          +cpu in cgroup.subtree_control
//!   ├─ onvm-<pid>.mgr            the manager: a group that has groups below must have no processes of its own
//!   └─ onvm-<pid>.<instance>     one for each instance that shares a processor
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use onvm_lib::protocol::InstanceId;

/// What weights are seen from: an equal share.
const EQUAL: f64 = 100.0;

/// A group that was delegated to the manager.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// The manager's own group, made ready for groups below; none if it is not ours to divide.
    pub(super) fn make() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let path = directory(&own, &mounts)?;
        if !is_delegated(&path) {
            return None;
        }
        Self::make_in(&path).inspect_err(|error| log::debug!("{}: {error}", path.display())).ok()
    }

    fn make_in(path: &Path) -> io::Result<Self> {
        let group = Self { path: path.to_path_buf() };
        let leaf = group.below("mgr");
        fs::create_dir(&leaf)?;
        let pid = std::process::id().to_string();
        let made = fs::write(leaf.join("cgroup.procs"), &pid)
            .and_then(|()| fs::write(path.join("cgroup.subtree_control"), "+cpu"));
        if let Err(error) = made {
            // Others live here, too.
            let _ = fs::write(path.join("cgroup.procs"), &pid);
            let _ = fs::remove_dir(&leaf);
            return Err(error);
        }
        Ok(group)
    }

    fn below(&self, name: &str) -> PathBuf {
        self.path.join(format!("onvm-{}.{name}", std::process::id()))
    }

    /// Moves a process into a group of its own, and sets its weight.
    pub(super) fn set(&self, instance: InstanceId, pid: i32, weight: i32) -> io::Result<()> {
        let directory = self.below(&instance.to_string());
        let new = match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            made => made.is_ok(),
        };
        fs::write(directory.join("cpu.weight"), weight.to_string())?;
        if new {
            fs::write(directory.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// Moves a process to the manager, where all weigh the same.
    pub(super) fn take_back(&self, instance: InstanceId, pid: i32) {
        // It may be gone.
        let _ = fs::write(self.below("mgr").join("cgroup.procs"), pid.to_string());
        let _ = fs::remove_dir(self.below(&instance.to_string()));
    }
}

impl Drop for Group {
    /// Leaves no group behind that is empty.
    fn drop(&mut self) {
        let prefix = format!("onvm-{}.", std::process::id());
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Whether a group may be divided: it has the controller, and it was given to us. Root may write everywhere, so for root its
/// giver must have said so.
fn is_delegated(path: &Path) -> bool {
    let controllers = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
        && rustix::fs::access(path.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    let said = || {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0u8; 1];
            matches!(rustix::fs::getxattr(path, *name, &mut value), Ok(1) if value == *b"1")
        })
    };
    let cpu = controllers.split_ascii_whitespace().any(|c| c == "cpu");
    cpu && writable && (!rustix::process::geteuid().is_root() || said())
}

/// Where the group of a process is in the file system.
fn directory(own: &str, mounts: &str) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = if root == "/" { Some(group) } else { group.strip_prefix(root) }?;
        Some(Path::new(point).join(below.trim_start_matches('/')))
    })
}

/// The weight of an instance with a share of a processor that `n` have.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers, and cut")]
pub(super) fn weight(share: f64, n: usize) -> i32 {
    (EQUAL * share * n as f64).round().clamp(1.0, 10_000.0) as i32
}

/// Whether a weight is another one by a fifth.
pub(super) fn differs(weight: i32, from: Option<i32>) -> bool {
    from.is_none_or(|from| (weight - from).abs() * 5 > from.max(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_share_weighs_what_the_kernel_takes_for_equal() {
        assert_eq!(
            (weight(0.25, 4), weight(0.5, 4), weight(0.0, 4), weight(1.0, 1000)),
            (100, 200, 1, 10_000)
        );
        assert!(differs(100, None) && !differs(110, Some(100)) && differs(130, Some(100)));
        assert!(differs(7, Some(1)) && !differs(2, Some(1)));
    }

    #[test]
    fn the_group_is_found_among_the_mounts() {
        let mounts =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n31 23 0:5 / /dev rw - tmpfs x rw";
        let own = "1:cpu:/x\n0::/user.slice/a.service";
        assert_eq!(directory(own, mounts), Some("/sys/fs/cgroup/user.slice/a.service".into()));
        let inside = "30 23 0:26 /pod/7 /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(directory("0::/pod/7/nf", inside), Some("/sys/fs/cgroup/nf".into()));
        assert_eq!(directory("0::/else", inside), None);
        assert_eq!(directory("1:cpu:/x", mounts), None);
    }

    #[test]
    fn processes_are_moved_and_weighed() {
        // Files of a directory stand for those of a group.
        let place = tempfile::tempdir().unwrap();
        let group = Group::make_in(place.path()).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(place.path().join("cgroup.subtree_control")), "+cpu");
        assert_eq!(read(group.below("mgr").join("cgroup.procs")), std::process::id().to_string());
        group.set(7, 4711, 250).unwrap();
        assert_eq!(read(group.below("7").join("cpu.weight")), "250");
        assert_eq!(read(group.below("7").join("cgroup.procs")), "4711");
        group.take_back(7, 4711);
        assert_eq!(read(group.below("mgr").join("cgroup.procs")), "4711");
    }
}
