//! One entry of `services`.

use std::collections::BTreeMap;
use std::path::Path;

use onvm_lib::document::{Cursor, Table};

use super::{Names, paths};
use crate::plan::{Affinity, MAX_INSTANCES, Policy, Restart, Scale, Service};

const KEYS: &[&str] = &[
    "id",
    "command",
    "directory",
    "environment",
    "instances",
    "scale",
    "standby",
    "core",
    "shared-core",
    "policy",
    "restart",
    "wait",
    "isolated",
    "affinity",
    "destination",
];
/// Keys that say how the manager starts a service's command.
const OF_COMMANDS: &[&str] =
    &["directory", "environment", "instances", "scale", "standby", "core", "shared-core", "restart"];
/// Largest number of a processor.
const MAX_CORE: u32 = 4095;
/// Options of every NF that the manager itself gives.
const OWN_OPTIONS: &[&str] =
    &["-r", "--service-id", "-d", "--destination", "-m", "--core", "-n", "--instance-id", "--socket"];

/// Reads a service; what is wrong is reported, and has its default.
pub(super) fn read(name: &str, cursor: &Cursor<'_>, names: &Names, directory: &Path) -> Option<Service> {
    let table = cursor.table(KEYS)?;
    let default = Service::default();
    let command = table.get("command").map(|c| command(&c, directory)).unwrap_or_default();
    if table.get("command").is_none() {
        for key in OF_COMMANDS {
            if let Some(value) = table.get(key) {
                value.warn("without effect: this service has no command, its NFs are started elsewhere");
            }
        }
    }
    let instances = table.get("instances").and_then(|c| c.number(0..=MAX_INSTANCES));
    let scale = table.get("scale").and_then(|c| scale(&c));
    if let (Some(_), Some(scale)) = (table.get("instances"), table.get("scale")) {
        scale.error("a service has either instances or scale: the manager chooses the number within scale");
    }
    let standby = table.get("standby").and_then(|c| c.number(0..=MAX_INSTANCES)).unwrap_or(default.standby);
    let most = scale.map(|s| s.max).or(instances).unwrap_or(default.instances);
    if most + standby > MAX_INSTANCES {
        cursor.error(format!("{most} instances and {standby} on standby are more than {MAX_INSTANCES}"));
    }
    let directory_of = table.get("directory").and_then(|c| c.text()).unwrap_or(".");
    let started_in = paths::resolve(directory, directory_of);
    if let Some(value) = table.get("directory").filter(|_| !started_in.is_dir()) {
        value.error(format!("{} is no directory", started_in.display()));
    }
    Some(Service {
        name: name.to_string(),
        command,
        directory: started_in.display().to_string(),
        environment: environment(&table),
        destination: table.get("destination").and_then(|c| names.find(&c)),
        instances: scale.map(|s| s.min).or(instances).unwrap_or(default.instances),
        standby,
        scale,
        core: table.get("core").and_then(|c| c.number(0..=MAX_CORE)),
        shared_core: flag(&table, "shared-core"),
        policy: policy(&table),
        restart: table.get("restart").map(|c| restart(&c)).unwrap_or_default(),
        wait: table.get("wait").and_then(|c| c.duration()),
        isolated: flag(&table, "isolated"),
        affinity: affinity(&table),
    })
}

fn flag(table: &Table<'_>, key: &str) -> bool {
    table.get(key).and_then(|c| c.boolean()).unwrap_or(false)
}

fn policy(table: &Table<'_>) -> Policy {
    let choices = [("restart", Policy::Restart), ("bypass", Policy::Bypass), ("drop", Policy::Drop)];
    table.get("policy").and_then(|c| c.choice(&choices)).unwrap_or_default()
}

fn affinity(table: &Table<'_>) -> Affinity {
    let choices = [("slot", Affinity::Slot), ("flow", Affinity::Flow)];
    table.get("affinity").and_then(|c| c.choice(&choices)).unwrap_or_default()
}

/// Program and arguments, the program with its path.
fn command(cursor: &Cursor<'_>, directory: &Path) -> Vec<String> {
    let is_list = matches!(cursor.node().value, onvm_lib::document::Value::List(_));
    let mut words: Vec<String> = if is_list {
        cursor.one_or_many().iter().filter_map(|c| c.text().map(str::to_string)).collect()
    } else {
        let Some(text) = cursor.text() else { return Vec::new() };
        let Some(words) = shlex::split(text) else {
            cursor.error("a quote is not closed, or a backslash stands at the end");
            return Vec::new();
        };
        words
    };
    if words.iter().any(|w| w.contains('\0')) {
        cursor.error("a zero byte: no program can be given one");
    }
    let Some(program) = words.first_mut() else {
        cursor.error("the command is empty");
        return words;
    };
    match paths::program(directory, program) {
        Some(path) => *program = path.display().to_string(),
        None if program.contains('/') => {
            let path = paths::resolve(directory, program);
            cursor.warn(format!("{} is no program", path.display()));
            *program = path.display().to_string();
        }
        None => cursor.warn(format!("{program:?} is neither beside onvm-mgr nor in PATH")),
    }
    let named = |word: &&String| OWN_OPTIONS.contains(&word.split('=').next().unwrap_or_default());
    if let Some(own) = words.iter().skip(1).take_while(|w| *w != "--").find(named) {
        cursor.error(format!("the manager itself gives {own}: see the keys id, destination and core"));
    }
    words
}

fn environment(table: &Table<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (key, value) in table.get("environment").and_then(|c| c.entries()).unwrap_or_default() {
        if key.text.is_empty() || key.text.contains(['=', '\0']) {
            value.error("the name of a variable is not empty and has no =");
        } else if let Some(text) = value.text() {
            all.insert(key.text.clone(), text.to_string());
        }
    }
    all
}

fn scale(cursor: &Cursor<'_>) -> Option<Scale> {
    let table = cursor.table(&["min", "max", "target-load"])?;
    let min = table.get("min").map_or(Some(1), |c| c.number(1..=MAX_INSTANCES));
    let max = table.need("max")?.number(1..=MAX_INSTANCES);
    let target_load = table.get("target-load").map_or(Some(0.7), |c| {
        let load = c.fraction(0.0..=1.0)?;
        if load == 0.0 {
            c.error("a load of 0 cannot be aimed at: more than 0, at most 1");
        }
        Some(load)
    });
    let (min, max, target_load) = (min?, max?, target_load?);
    if min > max {
        cursor.error(format!("min {min} is more than max {max}"));
        return None;
    }
    Some(Scale { min, max, target_load })
}

fn restart(cursor: &Cursor<'_>) -> Restart {
    let default = Restart::default();
    if cursor.plain() == Some("never") {
        return Restart { give_up: 0, ..default };
    }
    if !matches!(cursor.node().value, onvm_lib::document::Value::Mapping(_)) {
        cursor.error("`never`, or a mapping with give-up, delay, longest-delay and healthy, is needed");
        return default;
    }
    let Some(table) = cursor.table(&["give-up", "delay", "longest-delay", "healthy"]) else { return default };
    let duration = |key, otherwise| table.get(key).and_then(|c| c.duration()).unwrap_or(otherwise);
    let restart = Restart {
        give_up: table.get("give-up").and_then(|c| c.number(0..=u32::MAX)).unwrap_or(default.give_up),
        delay: duration("delay", default.delay),
        longest_delay: duration("longest-delay", default.longest_delay),
        healthy: duration("healthy", default.healthy),
    };
    if restart.delay > restart.longest_delay {
        cursor.error(format!(
            "delay, {} s, is more than longest-delay, {} s",
            restart.delay.as_secs_f64(),
            restart.longest_delay.as_secs_f64()
        ));
    }
    restart
}
