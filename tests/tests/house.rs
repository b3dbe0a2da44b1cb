//! Polices the house: who may import whom, where `unsafe` may stand, how long files and functions may be.

use std::path::{Path, PathBuf};

/// Rooms in which `unsafe` may stand. Each has its reason in its module documentation.
const UNSAFE_ROOMS: &[&str] = &[
    "onvm-classifier/src/quick.rs",
    "onvm-lib/src/shm/",
    "onvm-lib/src/ring/layout.rs",
    "onvm-lib/src/ring/bell.rs",
    "onvm-lib/src/ring/model.rs",
    "onvm-lib/src/ring/tests.rs",
    "onvm-lib/src/pool/memory.rs",
    "onvm-lib/src/pool/books.rs",
    "onvm-lib/src/packet/burst.rs",
    "onvm-lib/src/cpu.rs",
    "onvm-lib/src/node/",
    "onvm-lib/src/runtime/hands.rs",
    "onvm-mgr/src/ports/afpacket/",
    "onvm-mgr/src/ports/xdp/",
    "onvm-mgr/src/ports/tap/device.rs",
    "onvm-mgr/src/ports/vxlan/socket.rs",
    "onvm-mgr/src/ports/dpdk/",
    "dpdk-sys/",
    "bench/",
    "onvm-lib/benches/",
    "tests/src/bin/hostile_nf.rs",
    "tests/tests/house.rs",
];
const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 80;

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, without the code of unit tests and without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn collect(directory: &Path, into: &mut Vec<Source>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, into);
            }
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root()).unwrap().display().to_string();
            into.push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

/// Every Rust file of the tree.
fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    collect(&root(), &mut all);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(all.len() > 50, "the tree was not found");
    all
}

/// Fails with all that is wrong, a line for each.
fn assert_none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

/// Every line of code under `under` that contains one of `words`.
fn mentions(under: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| s.path.starts_with(under)) {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

#[test]
fn headers_import_nothing_of_ours() {
    let ours =
        ["crate::ring", "crate::pool", "crate::packet", "crate::node", "crate::runtime", "crate::protocol"];
    assert_none("wire imports", &mentions("onvm-lib/src/wire/", &ours));
    assert_none(
        "wire imports",
        &mentions("onvm-lib/src/wire/", &["crate::shm", "crate::capture", "crate::idle"]),
    );
}

#[test]
fn rings_know_no_packet() {
    let others =
        ["crate::packet", "crate::pool", "crate::wire", "crate::node", "crate::runtime", "crate::protocol"];
    assert_none("ring imports", &mentions("onvm-lib/src/ring/", &others));
}

#[test]
fn nfs_import_the_prelude_and_forbid_unsafe() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.path.starts_with("nf-") && s.path.contains("/src/")) {
        for (number, line) in source.code() {
            let import = line.trim_start().strip_prefix("use onvm_lib::");
            let allowed = ["prelude", "wire", "capture", "document", "flow_table", "reload"];
            if import.is_some_and(|rest| !allowed.iter().any(|room| rest.starts_with(room))) {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
        if source.path.ends_with("/main.rs") && !source.text.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{}: without #![forbid(unsafe_code)]", source.path));
        }
    }
    assert_none("network functions", &wrong);
    // The benches and tests of one that has a library use it.
    let own = |line: &String| {
        let name = line.split('/').next().unwrap_or_default().replace('-', "_");
        line.contains(&format!("use {name}::"))
    };
    let mut others = mentions("nf-", &["onvm_mgr", "use nf_"]);
    others.retain(|line| !own(line));
    assert_none("network functions", &others);
}

#[test]
fn the_data_path_knows_no_concrete_port_and_ports_know_no_routing() {
    let ports = [
        "ports::pcap",
        "ports::generator",
        "ports::null",
        "ports::rate",
        "crate::server",
        "crate::cli",
        "crate::tables",
    ];
    assert_none("the worker", &mentions("onvm-mgr/src/worker/", &ports));
    assert_none(
        "ports",
        &mentions("onvm-mgr/src/ports/", &["crate::worker", "crate::server", "crate::slots"]),
    );
    let main = std::fs::read_to_string(root().join("onvm-mgr/src/main.rs")).unwrap();
    assert!(main.contains("(unsafe_code)]"), "onvm-mgr/src/main.rs says nothing of unsafe");
}

/// Whether a line of code says `unsafe` other than in a lint.
fn says_unsafe(line: &str) -> bool {
    let word = |w: &str| w == "unsafe";
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(word) && !line.contains("unsafe_code")
}

#[test]
fn unsafe_stands_in_its_rooms_with_its_reason() {
    let mut wrong = Vec::new();
    for source in &sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code().filter(|(_, line)| says_unsafe(line)) {
            if line.contains('"') {
                continue;
            }
            if !UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room)) {
                wrong.push(format!("{}:{number}: unsafe outside its rooms", source.path));
            }
            // An `unsafe fn` says what its caller owes; a block or impl, why it is right.
            let before = &lines[number.saturating_sub(14)..number];
            let reason = before.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
            if !reason {
                wrong.push(format!("{}:{number}: no SAFETY comment", source.path));
            }
        }
    }
    assert_none("unsafe", &wrong);
}

#[test]
fn files_and_functions_are_of_a_size_to_be_read() {
    let mut wrong = Vec::new();
    for source in &sources() {
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE {
            wrong.push(format!("{}: {lines} lines, at most {LONGEST_FILE}", source.path));
        }
        let mut open: Option<(usize, usize, &str)> = None;
        for (number, line) in source.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            match open {
                Some((from, depth, name)) if indent == depth && code.starts_with('}') => {
                    let long = number - from + 1;
                    if long > LONGEST_FUNCTION {
                        wrong.push(format!("{}:{}: {long} lines: {}", source.path, from + 1, name.trim()));
                    }
                    open = None;
                }
                None if (code.starts_with("fn ") || code.contains(" fn "))
                    && !code.starts_with("//")
                    && line.ends_with('{') =>
                {
                    open = Some((number, indent, line));
                }
                _ => {}
            }
        }
    }
    assert_none("too long", &wrong);
}

#[test]
fn every_synchronisation_point_has_both_ends() {
    let mut count = std::collections::BTreeMap::new();
    for source in
        sources().iter().filter(|s| s.path.starts_with("onvm-lib/src") || s.path.starts_with("onvm-mgr/src"))
    {
        for line in source.text.lines().filter(|l| l.trim_start().starts_with("// SYNC POINT: ")) {
            let name = line.trim_start().trim_start_matches("// SYNC POINT: ");
            let name =
                name.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap_or_default().to_string();
            *count.entry(name).or_insert(0) += 1;
        }
    }
    assert!(count.len() >= 2, "{count:?}");
    let single: Vec<String> = count.into_iter().filter(|(_, n)| *n < 2).map(|(name, _)| name).collect();
    assert_none("with one end only", &single);
}

#[test]
fn nothing_is_put_off_and_no_room_is_called_misc() {
    let words =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME"), concat!("TO", "DO")];
    let mut wrong = Vec::new();
    for source in &sources() {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|w| line.contains(w)) || line.contains(concat!("for ", "now,")) {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
        if ["util", "utils", "common", "misc", "helpers"]
            .iter()
            .any(|n| source.path.contains(&format!("/{n}.rs")) || source.path.contains(&format!("/{n}/")))
        {
            wrong.push(format!("{}: a room with a name that says nothing", source.path));
        }
    }
    assert_none("put off", &wrong);
}

#[test]
fn the_readme_names_every_program_and_its_commands_exist() {
    let Ok(readme) = std::fs::read_to_string(root().join("README.md")) else { return };
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.join("src/main.rs").exists() && (name.starts_with("nf-") || name.starts_with("onvm-")) {
            assert!(readme.contains(&name), "README.md does not name {name}");
        }
    }
    for word in readme.split(|c: char| c.is_whitespace() || "`()".contains(c)) {
        let script = word.trim_end_matches(['.', ',', ':']);
        if script.starts_with("scripts/") && script.len() > "scripts/".len() || script == ".ci/run" {
            assert!(root().join(script).exists(), "README.md speaks of {script}, which is not there");
        }
    }
}
