//! The programs under test: built once, from the tree as it stands.

use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a program of this workspace, freshly built.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let path = DIRECTORY.get_or_init(build).join(name);
    assert!(path.exists(), "{} is not there although the workspace was built", path.display());
    path
}

/// Whether DPDK is installed for programs to be built with: then the manager is. If it is not that is said aloud; in CI
/// it is a failure.
///
/// # Panics
/// In CI without DPDK.
#[must_use]
pub fn with_dpdk() -> bool {
    let found = has_dpdk();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "libdpdk-dev is needed: scripts/setup.sh test installs it");
        eprintln!("SKIPPED: libdpdk-dev is needed: scripts/setup.sh test installs it");
    }
    found
}

fn has_dpdk() -> bool {
    let asked = Command::new("pkg-config").args(["--exists", "libdpdk"]).status();
    asked.is_ok_and(|status| status.success())
}

/// Where cargo puts programs: above the directory of test executables.
fn directory() -> PathBuf {
    let test = std::env::current_exe().expect("the test executable has a path");
    let deps = test.parent().expect("it lies in a directory");
    let above = if deps.ends_with("deps") { deps.parent() } else { Some(deps) };
    above.expect("target directories have a parent").to_path_buf()
}

/// Builds all programs, at most once in a run of nextest, which starts a process for every test.
fn build() -> PathBuf {
    let directory = directory();
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_default();
    let marker = directory.join(".onvm-tests-built");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&marker)
        .expect("the target directory can be written");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("the marker can be locked");
    let mut built_by = String::new();
    file.read_to_string(&mut built_by).expect("the marker can be read");
    if run.is_empty() || built_by != run {
        cargo_build(&directory);
        file.set_len(0).expect("the marker can be cut");
        file.rewind().expect("the marker is a file");
        file.write_all(run.as_bytes()).expect("the marker can be written");
    }
    directory
}

fn cargo_build(directory: &Path) {
    let profile = match directory.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["build", "--workspace", "--bins", "--quiet", "--profile", profile])
        .args(has_dpdk().then_some("--features=onvm-mgr/dpdk"))
        .args(
            directory
                .parent()
                .map(|target| ["--target-dir".as_ref(), target.as_os_str()])
                .into_iter()
                .flatten(),
        )
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo can be started");
    assert!(out.status.success(), "the programs cannot be built:\n{}", String::from_utf8_lossy(&out.stderr));
}
