//! SIGHUP asks for rule files to be read anew. A program of its own, since a signal is the whole process's.

use std::path::Path;
use std::time::{Duration, Instant};

use onvm_lib::reload::Reloader;
use signal_hook::consts::SIGHUP;

fn number(path: &Path) -> Result<u32, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    text.trim().parse().map_err(|_| format!("{text:?} is no number"))
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "nothing came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_signal_reaches_every_reloader_until_it_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    std::fs::write(&one, "1").unwrap();
    std::fs::write(&two, "2").unwrap();
    let (_, mut first) = Reloader::start(std::slice::from_ref(&one), false, number).unwrap();
    let (_, mut second) = Reloader::start(std::slice::from_ref(&two), false, number).unwrap();
    std::fs::write(&one, "5").unwrap();
    std::fs::write(&two, "two").unwrap();
    signal_hook::low_level::raise(SIGHUP).unwrap();
    assert_eq!(until(|| first.take()), 5);
    let status = until(|| Some(second.status()).filter(|s| s.failures == 1));
    assert_eq!((status.generation, status.last_error.as_deref()), (1, Some("\"two\" is no number")));
    drop(first);
    std::fs::write(&two, "6").unwrap();
    signal_hook::low_level::raise(SIGHUP).unwrap();
    assert_eq!(until(|| second.take()), 6);
    assert_eq!((second.take(), second.status().generation), (None, 2));
}
