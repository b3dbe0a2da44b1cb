//! The table, for people and for machines.

use serde_json::{Value, json};

use crate::measure::{Line, Mark};

fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn mark(mark: Mark) -> String {
    match mark {
        Mark::None => String::new(),
        Mark::Ratio(least) => format!("≥ {least:.2} ×"),
        Mark::AtLeast(least) => format!("≥ {least}"),
        Mark::AtMost(most) => format!("≤ {most}"),
    }
}

/// The heading of the columns.
pub(crate) fn print_heading() {
    println!("{:<32} {:>16}  {:<38} {:>7}  {:<9} met", "what", "ours", "floor or peer", "ratio", "mark");
}

pub(crate) fn print_line(line: &Line) {
    let ours = match &line.ours {
        Ok(value) => format!("{} {:<6}", number(*value), line.unit),
        Err(reason) => {
            println!("{:<32} not measured: {reason}", line.name);
            return;
        }
    };
    let floor =
        line.floor.as_ref().map_or(String::new(), |(name, value)| format!("{:>8} {name}", number(*value)));
    let ratio = line.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let met = match line.met() {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    println!("{:<32} {ours:>16}  {floor:<38} {ratio:>7}  {:<9} {met}", line.name, mark(line.mark));
}

/// The line as JSON.
pub(crate) fn as_json(row: &str, line: &Line) -> Value {
    json!({
        "row": row,
        "name": line.name,
        "unit": line.unit,
        "ours": line.ours.as_ref().ok(),
        "error": line.ours.as_ref().err(),
        "floor": line.floor.as_ref().map(|(name, value)| json!({ "name": name, "value": value })),
        "ratio": line.ratio,
        "mark": mark(line.mark),
        "met": line.met(),
    })
}
