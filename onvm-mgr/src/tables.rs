//! Statistics for people, made from the same JSON that machines get.

use std::fmt::Write;

use onvm_lib::protocol::Request;
use serde_json::Value;

/// Rows of columns, the first row being the heading; numbers to the right, words to the left.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
    let right: Vec<bool> = (0..columns)
        .map(|c| rows.iter().skip(1).filter_map(|r| r.get(c)).all(|cell| number(cell) || cell == "-"))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing to a string cannot fail.
            let _ =
                if right[column] { write!(line, " {cell:>width$}") } else { write!(line, " {cell:<width$}") };
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Object(counts) => {
            let parts: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
            if parts.is_empty() { "-".into() } else { parts.join(", ") }
        }
        other => other.to_string(),
    }
}

fn rows(list: &Value, columns: &[(&str, &str)]) -> Vec<Vec<String>> {
    let heading = columns.iter().map(|(title, _)| (*title).to_string()).collect();
    let body = list.as_array().into_iter().flatten();
    let row = |item: &Value| columns.iter().map(|(_, field)| cell(&item[*field])).collect();
    std::iter::once(heading).chain(body.map(row)).collect()
}

const PORTS: &[(&str, &str)] = &[
    ("PORT", "port"),
    ("RX", "rx_packets"),
    ("RX BYTES", "rx_bytes"),
    ("TX", "tx_packets"),
    ("TX BYTES", "tx_bytes"),
    ("REFUSED", "rx_refused"),
    ("MISSED", "rx_missed"),
    ("ERRORS", "rx_errors"),
    ("FAILED", "tx_failed"),
    ("NAME", "name"),
];

const PORT_LIST: &[(&str, &str)] = &[
    ("PORT", "port"),
    ("STATE", "state"),
    ("PAIR", "pair"),
    ("LINK", "link"),
    ("MBIT/S", "mbps"),
    ("MTU", "mtu"),
    ("RX", "rx_packets"),
    ("TX", "tx_packets"),
    ("NAME", "name"),
];

const SERVICES: &[(&str, &str)] = &[
    ("SVC", "service"),
    ("NAME", "name"),
    ("INSTANCES", "instances"),
    ("STATES", "by_state"),
    ("RX", "received"),
    ("DROP", "dropped"),
    ("WAITING", "waiting"),
];

const INSTANCES: &[(&str, &str)] = &[
    ("INST", "instance"),
    ("SVC", "service"),
    ("NAME", "name"),
    ("PID", "pid"),
    ("STATE", "state"),
    ("ROLE", "role"),
    ("CPU", "core"),
    ("RX", "received"),
    ("NEXT", "next"),
    ("TO SVC", "to_service"),
    ("OUT", "out"),
    ("DROP", "dropped"),
    ("MADE", "made"),
];

const DEPARTED: &[(&str, &str)] = &[
    ("INST", "instance"),
    ("SVC", "service"),
    ("NAME", "name"),
    ("END", "state"),
    ("RX", "received"),
    ("NEXT", "next"),
    ("TO SVC", "to_service"),
    ("OUT", "out"),
    ("DROP", "dropped"),
    ("MADE", "made"),
];

/// All statistics.
pub(crate) fn stats(body: &Value) -> String {
    let mut text = String::new();
    let uptime = body["uptime_s"].as_f64().unwrap_or(0.0);
    let _ = writeln!(text, "onvm-mgr, {}, up {uptime:.1} s", cell(&body["phase"]));
    section(&mut text, "Ports", &body["ports"], PORTS);
    if body["audit"].is_null() {
        section(&mut text, "Services", &body["services"], SERVICES);
        chains(&mut text, body);
    }
    section(&mut text, "Network functions", &body["instances"], INSTANCES);
    section(&mut text, "Network functions that have gone", &body["departed"], DEPARTED);
    if body["audit"].is_null() {
        drops(&mut text, body);
        let pool = &body["pool"];
        let _ = writeln!(text, "Pool: {} of {} buffers free", pool["free"], pool["buffers"]);
    } else {
        text.push_str("Ledger\n");
        text.push_str(&audit(&body["audit"]));
        drops(&mut text, body);
    }
    text.trim_end().to_string()
}

fn section(text: &mut String, title: &str, list: &Value, columns: &[(&str, &str)]) {
    if list.as_array().is_some_and(|l| !l.is_empty()) {
        let _ = writeln!(text, "{title}");
        text.push_str(&table(&rows(list, columns)));
    }
}

/// Chains by name, and how many rules choose among them.
fn chains(text: &mut String, body: &Value) {
    let Some(chains) = body["chains"].as_object().filter(|c| !c.is_empty()) else { return };
    text.push_str("Chains\n");
    for (name, hops) in chains {
        let mark = if body["default_chain"] == name.as_str() { " (default)" } else { "" };
        let _ = writeln!(text, "  {name}: {}{mark}", path(hops));
    }
    match body["rules"].as_u64().unwrap_or(0) {
        0 => {}
        1 => text.push_str("  1 rule\n"),
        n => drop(writeln!(text, "  {n} rules")),
    }
}

/// Services in order.
fn path(hops: &Value) -> String {
    let ids: Vec<String> = hops.as_array().into_iter().flatten().map(cell).collect();
    if ids.is_empty() { "none: straight from port to port".into() } else { ids.join(" -> ") }
}

fn drops(text: &mut String, body: &Value) {
    let Some(drops) = body["drops"].as_object().filter(|d| !d.is_empty()) else { return };
    text.push_str("Drops\n");
    for (reason, n) in drops {
        let _ = writeln!(text, "  {n} {reason}");
    }
    if body["bad_descriptors"].as_u64().unwrap_or(0) > 0 {
        let _ = writeln!(text, "  {} bad descriptors refused", body["bad_descriptors"]);
    }
}

/// Both sums.
fn audit(body: &Value) -> String {
    let (p, b) = (&body["packets"], &body["pool"]);
    let verdict = |sum: &Value| if sum["balances"] == true { "balances" } else { "DOES NOT BALANCE" };
    format!(
        "  packets: {} received + {} generated + {} copied = {} sent + {} dropped + {} inside: {}\n  \
         buffers: {} free + {} in rings + {} held + {} with the worker + {} lost = {}: {}\n",
        p["received"],
        p["generated"],
        p["copied"],
        p["sent"],
        p["dropped"],
        p["inside"],
        verdict(p),
        b["free"],
        b["in_rings"],
        b["held"],
        b["with_worker"],
        b["lost"],
        b["buffers"],
        verdict(b)
    )
}

/// What a manager said to a request.
pub(crate) fn told(request: &Request, body: &Value) -> String {
    let did = |what: &str| format!("{what} {}", instances(&body["instances"]));
    match request {
        Request::Status | Request::Stats => stats(body),
        Request::NfList => table(&rows(&body["instances"], INSTANCES)).trim_end().to_string(),
        Request::Audit => audit(body).trim_end().to_string(),
        Request::NfStart { service } if body["instances"] == 1 => {
            format!("starting an instance of service {service}")
        }
        Request::NfStart { service } => {
            format!("starting {} of service {service}", instances(&body["instances"]))
        }
        Request::NfStop { .. } => format!("asked {} to leave", instances(&body["instances"])),
        Request::NfTell { .. } => did("told"),
        Request::NfPause { .. } => did("paused"),
        Request::NfResume { .. } => did("resumed"),
        Request::NfDrain { .. } => did("draining"),
        Request::NfKill { .. } => did("killed"),
        Request::NfScale { service, .. } => {
            format!("service {service}: {}", instances(&body["instances"]))
        }
        Request::NfRestart { .. } | Request::NfReplace { .. } => replaced(body),
        Request::ChainShow | Request::ChainSet { .. } => chain(body),
        Request::PortList => table(&rows(&ports(body), PORT_LIST)).trim_end().to_string(),
        Request::PortAdd { .. } => format!("port {}: {}", body["port"], cell(&body["name"])),
        Request::PortRemove { .. } => format!(
            "port {} removed: {}: {} packets received, {} sent",
            body["port"],
            cell(&body["name"]),
            body["rx_packets"],
            body["tx_packets"]
        ),
        Request::Shutdown => "stopping".into(),
        _ => body.to_string(),
    }
}

fn instances(count: &Value) -> String {
    let n = count.as_u64().unwrap_or(0);
    if n == 1 { "1 instance".into() } else { format!("{n} instances") }
}

/// A line for each instance that was to be replaced.
fn replaced(body: &Value) -> String {
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let done = list("replaced");
    let done = done.iter().map(|r| format!("instance {} replaced by {}", r["instance"], r["by"]));
    let failed = list("failed");
    let failed =
        failed.iter().map(|f| format!("instance {} not replaced: {}", f["instance"], cell(&f["why"])));
    done.chain(failed).collect::<Vec<_>>().join("\n")
}

/// Ports with what is known of their links in columns.
fn ports(body: &Value) -> Value {
    let mut ports = body["ports"].clone();
    for port in ports.as_array_mut().into_iter().flatten() {
        let link = port["link"].take();
        port["link"] = link["up"].as_bool().map_or(Value::Null, |up| if up { "up" } else { "down" }.into());
        (port["mbps"], port["mtu"]) = (link["mbps"].clone(), link["mtu"].clone());
    }
    ports
}

/// One event in one line.
pub(crate) fn event(body: &Value) -> String {
    let mut text = format!("{}  {:<16}", cell(&body["time"]), cell(&body["event"]));
    let mut part = |text_before: &str, field: &str| {
        if !body[field].is_null() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{text_before}{}", cell(&body[field]));
        }
    };
    part(" service ", "service");
    part(" instance ", "instance");
    part(" port ", "port");
    part(" pid ", "pid");
    part(" ", "from");
    part(" -> ", "to");
    part(" by ", "by");
    part(": ", "why");
    text
}

fn chain(body: &Value) -> String {
    let mut text = path(&body["chain"]);
    let missing: Vec<String> = body["without_instance"].as_array().into_iter().flatten().map(cell).collect();
    if !missing.is_empty() {
        let _ = write!(text, "\nwithout an instance: {}", missing.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let text = table(&rows(
            &json!([{ "a": 5, "b": "x" }, { "a": 500, "b": "longer" }]),
            &[("A", "a"), ("B", "b"), ("C", "c")],
        ));
        assert_eq!(text, "    A  B       C\n    5  x       -\n  500  longer  -\n");
    }

    #[test]
    fn an_audit_says_whether_it_balances() {
        let body = json!({
            "packets": { "received": 5, "generated": 0, "copied": 0, "sent": 5, "dropped": 0, "inside": 0, "balances": true },
            "pool": { "buffers": 9, "free": 8, "in_rings": 0, "held": 0, "with_worker": 0, "lost": 1, "balances": false },
        });
        let text = audit(&body);
        assert!(
            text.contains("5 received + 0 generated + 0 copied = 5 sent + 0 dropped + 0 inside: balances")
        );
        assert!(text.contains("1 lost = 9: DOES NOT BALANCE"));
    }
}
