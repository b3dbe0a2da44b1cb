//! The files that processes write to: one each, bounded in size and number.

use std::path::{Path, PathBuf};

use onvm_lib::protocol::ServiceId;

use super::Supervisor;
use crate::plan::Service;

/// Logs that are kept of a service's processes that are gone.
const LOGS_KEPT: usize = 32;

impl Supervisor {
    /// Path of the log of a new process; the directory is made if need be.
    pub(super) fn new_log(&self, id: ServiceId, service: &Service, number: u32) -> Result<PathBuf, String> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.log_directory);
        made.map_err(|e| format!("cannot make the log directory {}: {e}", self.log_directory.display()))?;
        let name = if service.name.is_empty() { "service" } else { &service.name };
        let name: String =
            name.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
        let path = self.log_directory.join(format!("{name}-{id}.{number}.log"));
        self.forget_old_logs(id);
        Ok(path)
    }

    /// Removes the oldest logs of processes of a service that are gone.
    fn forget_old_logs(&self, id: ServiceId) {
        let Ok(entries) = std::fs::read_dir(&self.log_directory) else { return };
        let mark = format!("-{id}.");
        let in_use = |path: &Path| self.processes.iter().any(|p| p.log == path);
        let age = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let ours = |path: &PathBuf| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.contains(&mark) && name.contains(".log") && !in_use(path)
        };
        let mut old: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).filter(ours).collect();
        old.sort_by_key(age);
        for path in old.iter().take(old.len().saturating_sub(LOGS_KEPT)) {
            // Another manager of the same directory may have been quicker.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The log of a process that another manager started.
    pub(super) fn find_log(&self, id: ServiceId, number: u32) -> Option<PathBuf> {
        let end = format!("-{id}.{number}.log");
        let entries = std::fs::read_dir(&self.log_directory).ok()?;
        let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths.find(|path| path.to_string_lossy().ends_with(&end))
    }
}

/// Keeps what is in a log once, and cuts it, also when there is no room for the copy. In a thread of its own: copying takes
/// its time, and nobody waits for it.
pub(super) fn turn_over(path: PathBuf) {
    let work = move || {
        let kept = std::fs::copy(&path, path.with_extension("log.old"));
        let cut = std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
        if let Err(error) = kept.map(|_| ()).and(cut) {
            log::warn!("cannot turn over {}: {error}", path.display());
        }
    };
    if let Err(error) = std::thread::Builder::new().name("log".into()).spawn(work) {
        log::warn!("no log is turned over: {error}");
    }
}

/// The highest number of a log in a directory, 0 if there is none.
pub(super) fn last_number(directory: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let number = |path: PathBuf| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".log.old"))?;
        stem.rsplit('.').next()?.parse().ok()
    };
    entries.filter_map(Result::ok).filter_map(|entry| number(entry.path())).max().unwrap_or(0)
}
