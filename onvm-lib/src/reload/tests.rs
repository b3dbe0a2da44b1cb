use super::*;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn number(path: &Path) -> Result<u32, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if text.contains("panic") {
        panic!("a file that breaks the compiler");
    }
    text.trim().parse().map_err(|e| format!("{}: {text:?}: {e}", path.display()))
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "nothing came in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn started(text: &str, watch: bool) -> (tempfile::TempDir, PathBuf, Reloader<u32>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules");
    std::fs::write(&file, text).unwrap();
    let (first, reloader) = Reloader::start(std::slice::from_ref(&file), watch, number).unwrap();
    assert_eq!(first.to_string(), text);
    (directory, file, reloader)
}

#[test]
fn a_change_in_place_and_one_by_rename_are_seen() {
    let (directory, file, mut reloader) = started("1", true);
    assert_eq!(reloader.take(), None);
    std::fs::write(&file, "2").unwrap();
    assert_eq!(until(|| reloader.take().filter(|n| *n == 2)), 2);
    let other = directory.path().join("other");
    std::fs::write(&other, "3").unwrap();
    std::fs::rename(&other, &file).unwrap();
    assert_eq!(until(|| reloader.take().filter(|n| *n == 3)), 3);
    // A file that is away for a moment is waited for.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(directory.path().join("unrelated"), "9").unwrap();
    std::fs::write(&other, "4").unwrap();
    std::fs::rename(&other, &file).unwrap();
    assert_eq!(until(|| reloader.take().filter(|n| *n == 4)), 4);
    let status = reloader.status();
    assert!(status.generation >= 4 && status.failures == 0, "{status:?}");
}

#[test]
fn a_symbolic_link_that_is_set_anew_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (folder, text) in [("a", "1"), ("b", "2")] {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("rules"), text).unwrap();
    }
    std::os::unix::fs::symlink("a", at("now")).unwrap();
    std::os::unix::fs::symlink("now/rules", at("rules")).unwrap();
    let (first, mut reloader) = Reloader::start(&[at("rules")], true, number).unwrap();
    std::os::unix::fs::symlink("b", at("next")).unwrap();
    std::fs::rename(at("next"), at("now")).unwrap();
    assert_eq!((first, until(|| reloader.take())), (1, 2));
    // What the link leads to now is watched, too.
    std::fs::write(at("b/rules"), "5").unwrap();
    assert_eq!(until(|| reloader.take().filter(|n| *n == 5)), 5);
}

#[test]
fn a_file_beside_counts_too() {
    let directory = tempfile::tempdir().unwrap();
    let (main, beside) = (directory.path().join("main"), directory.path().join("beside"));
    std::fs::write(&main, "1").unwrap();
    std::fs::write(&beside, "1").unwrap();
    let other = beside.clone();
    let sum = move |path: &Path| Ok(number(path)? + number(&other)?);
    let (first, mut reloader) = Reloader::start(&[main, beside.clone()], true, sum).unwrap();
    std::fs::write(&beside, "7").unwrap();
    assert_eq!((first, until(|| reloader.take().filter(|n| *n == 8))), (2, 8));
}

#[test]
fn a_broken_file_leaves_the_old_set_and_the_next_good_one_is_taken() {
    let (_directory, file, mut reloader) = started("1", false);
    for (n, (text, what)) in
        [("one", "invalid digit"), ("", "empty"), ("panic", "panic")].into_iter().enumerate()
    {
        std::fs::write(&file, text).unwrap();
        reloader.request();
        let status = until(|| Some(reloader.status()).filter(|s| s.failures == n as u64 + 1));
        let error = status.last_error.unwrap();
        assert!(error.contains(what) && error.contains(&*file.to_string_lossy()), "{error}");
        assert_eq!((status.generation, reloader.take()), (1, None));
    }
    std::fs::write(&file, "2").unwrap();
    reloader.request();
    assert_eq!(until(|| reloader.take()), 2);
    let status = reloader.status();
    assert_eq!(status, Status { generation: 2, failures: 3, last_error: None });
}

#[test]
fn a_broken_first_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules");
    std::fs::write(&file, "x").unwrap();
    assert!(
        Reloader::start(std::slice::from_ref(&file), true, number).unwrap_err().contains("invalid digit")
    );
    assert!(Reloader::start(&[directory.path().join("none")], false, number).unwrap_err().contains("none"));
    assert!(Reloader::start(&[], false, number).unwrap_err().contains("no file"));
}

#[test]
fn what_was_replaced_is_freed_beside() {
    struct Set(u32, std::sync::mpsc::Sender<(u32, std::thread::ThreadId)>);
    impl Drop for Set {
        fn drop(&mut self) {
            let _ = self.1.send((self.0, std::thread::current().id()));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules");
    std::fs::write(&file, "1").unwrap();
    let (send, freed) = std::sync::mpsc::channel();
    let compile = move |path: &Path| Ok(Set(number(path)?, send.clone()));
    let (mut set, mut reloader) = Reloader::start(&[file], false, compile).unwrap();
    set.0 = 100;
    reloader.request();
    let fresh = until(|| reloader.take());
    reloader.retire(std::mem::replace(&mut set, fresh));
    let (number, thread) = freed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(number, 100);
    assert_ne!(thread, std::thread::current().id());
}
