//! DPDK's environment (EAL): started once in a process, when the first port wants it.
//!
//! It takes huge pages when the pool lies on some and enough are left, and plain ones else. It writes no file, opens no
//! telemetry socket, and looks at no PCI device that no port names: the list of devices that it may use begins
//! with one that cannot be, and each port adds its own. A start fixes its thread to a processor, so it has a thread of its own.

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use onvm_lib::pool::Pool;
use onvm_lib::shm::Pages;

/// Megabytes for what drivers keep beside packets: rings, tables.
const MEGABYTES: u64 = 64;
/// A device that no machine has: with a list of those that may be used, others are left alone.
const NO_DEVICE: &str = "ffff:ff:1f.7";

/// What went wrong, by the number that DPDK gave.
pub(super) fn reason(number: c_int) -> String {
    // SAFETY: the text is static, or of this thread and replaced by the next call; it is copied at once.
    unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(number.abs())) }.to_string_lossy().into_owned()
}

/// The last error of this thread.
pub(super) fn last_reason() -> String {
    // SAFETY: reads a number of this thread's.
    reason(unsafe { dpdk_sys::onvm_dpdk_errno() })
}

/// What DPDK returned, as a result.
pub(super) fn check(what: &str, returned: c_int) -> Result<c_int, String> {
    if returned < 0 { Err(format!("{what}: {}", reason(returned))) } else { Ok(returned) }
}

/// Setting up and taking down, which DPDK leaves to its users to do one at a time.
pub(super) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether so many bytes of huge pages can still be had.
fn huge_pages_left() -> bool {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return false };
    sizes.flatten().any(|size| {
        let number = |file: &str| -> u64 {
            let text = std::fs::read_to_string(size.path().join(file)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let name = size.file_name().to_string_lossy().into_owned();
        let kilobytes = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB"));
        let kilobytes: u64 = kilobytes.and_then(|n| n.parse().ok()).unwrap_or(0);
        number("free_hugepages").saturating_sub(number("resv_hugepages")) * kilobytes >= MEGABYTES << 10
    })
}

/// A processor that this process may use.
fn processor() -> usize {
    let allowed = rustix::thread::sched_getaffinity(None);
    (0..rustix::thread::CpuSet::MAX_CPU)
        .find(|cpu| allowed.as_ref().is_ok_and(|set| set.is_set(*cpu)))
        .unwrap_or(0)
}

fn arguments(huge: bool) -> Vec<String> {
    let mut all = vec![
        "onvm-mgr".to_string(),
        format!("--lcores=0@{}", processor()),
        format!("-m{MEGABYTES}"),
        format!("--file-prefix=onvm-{}", std::process::id()),
        "--iova-mode=va".into(),
        "--no-telemetry".into(),
        "--log-level=*:error".into(),
    ];
    if huge {
        all.push("--in-memory".into());
    } else {
        all.extend(["--no-huge".into(), "--no-shconf".into()]);
    }
    if Path::new("/sys/bus/pci/devices").is_dir() {
        all.push(format!("--allow={NO_DEVICE}"));
    } else {
        all.push("--no-pci".into());
    }
    all
}

/// Starts it, if nobody has.
///
/// # Errors
/// Why it cannot be started; the same for all that ask later, since DPDK does not try twice.
pub(super) fn start(pool: &Pool) -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let huge = pool.region().pages() == Pages::Huge && huge_pages_left();
    let started = STARTED.get_or_init(|| {
        let thread = std::thread::Builder::new().name("dpdk-start".into()).spawn(move || initialise(huge));
        let outcome = thread.map_err(|error| error.to_string())?.join();
        outcome.unwrap_or_else(|_| Err("its thread panicked".into()))
    });
    started.clone().map_err(|why| format!("DPDK does not start: {why}"))
}

fn initialise(huge: bool) -> Result<(), String> {
    let arguments = arguments(huge).into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let arguments = arguments.map_err(|error| error.to_string())?;
    log::debug!("DPDK starts with {arguments:?}");
    let count = c_int::try_from(arguments.len()).map_err(|error| error.to_string())?;
    // It may keep what it was given, so that stays for ever.
    let mut pointers: Vec<_> = arguments.into_iter().map(CString::into_raw).collect();
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak().as_mut_ptr();
    // SAFETY: no arguments; `pointers` are `count` strings and a null behind them, as of a program's own command line.
    let (logs, started) =
        unsafe { (dpdk_sys::onvm_dpdk_log_to_stderr(), dpdk_sys::rte_eal_init(count, pointers)) };
    if logs < 0 {
        log::warn!("DPDK's messages cannot be told where to go: {}", reason(logs));
    }
    let why = last_reason();
    // SAFETY: static texts.
    let [version, directory] = unsafe {
        [dpdk_sys::onvm_dpdk_version(), dpdk_sys::rte_eal_get_runtime_dir()].map(|t| CStr::from_ptr(t))
    };
    let version = version.to_string_lossy();
    // It makes a directory for files, of which it was told to have none. Not empty it is not ours.
    let directory = Path::new(std::ffi::OsStr::from_bytes(directory.to_bytes()));
    if std::fs::remove_dir(directory).is_ok()
        && let Some(parent) = directory.parent()
    {
        let _ = std::fs::remove_dir(parent);
    }
    if started < 0 {
        return Err(why);
    }
    log::info!("{version} on {}", if huge { "huge pages" } else { "plain pages" });
    Ok(())
}

/// Makes a pool's memory known, if it is not. The pool then lives as long as the process.
///
/// # Errors
/// Why DPDK does not take it.
pub(super) fn make_known(pool: &Pool) -> Result<(), String> {
    static KNOWN: Mutex<Vec<Pool>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let region = pool.region();
    if known.iter().any(|other| other.region().base() == region.base()) {
        return Ok(());
    }
    let page = page_bytes(region.pages());
    let pages = u32::try_from(region.len() / page).map_err(|error| error.to_string())?;
    // SAFETY: the region has just these pages, and the copy in `known` keeps it mapped for ever.
    let registered = unsafe {
        let base = region.base().as_ptr().cast();
        dpdk_sys::rte_extmem_register(base, region.len(), std::ptr::null_mut(), pages, page)
    };
    if registered < 0 {
        return Err(format!("the packet memory is not taken: {}", last_reason()));
    }
    known.push(pool.clone());
    Ok(())
}

fn page_bytes(pages: Pages) -> usize {
    match pages {
        Pages::Huge => 2 << 20,
        Pages::Plain => rustix::param::page_size(),
    }
}
