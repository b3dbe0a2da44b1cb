//! `--live`: what happens now, drawn over itself on a terminal; a line each time where there is none.
//!
//! It is drawn beside the packets ([`Printer`]): a terminal that was stopped holds up none of them, and misses what was
//! drawn meanwhile.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use onvm_lib::prelude::Printer;

use crate::monitor::Monitor;
use crate::report::Picked;
use crate::report::text::{write_flows, write_summary};

/// To the upper left corner.
const HOME: &str = "\x1b[H";
const WIPE_LINE: &str = "\x1b[K";
const WIPE_BELOW: &str = "\x1b[J";
/// Size of a terminal that does not tell: rows and columns.
const USUAL: (usize, usize) = (24, 80);

/// How long a monitor that ends waits for what was drawn.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// When to draw.
#[derive(Debug)]
pub(crate) struct Live {
    interval: Duration,
    next: Instant,
    printer: Printer,
}

impl Live {
    /// # Errors
    /// The thread that draws cannot be started.
    pub(crate) fn new(interval: Duration) -> std::io::Result<Self> {
        Ok(Self { interval, next: Instant::now() + interval, printer: Printer::stdout()? })
    }

    /// Draws, if it is time, and who looks at it has kept up.
    pub(crate) fn draw(&mut self, monitor: &Monitor, picked: impl FnOnce() -> Picked) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + self.interval;
        if !self.printer.has_room() {
            return self.printer.note_lost();
        }
        let out = std::io::stdout();
        let text = if out.is_terminal() { screen(monitor, &picked(), size(&out)) } else { line(monitor) };
        self.printer.print(text);
    }

    /// How often nothing was drawn, since nobody had looked at what was drawn before.
    pub(crate) fn lost(&self) -> u64 {
        self.printer.lost()
    }

    /// The last report comes after all that was drawn, unless nobody looks.
    pub(crate) fn finish(&mut self) {
        self.printer.finish(None, LAST_WAIT);
    }
}

/// Rows and columns of a terminal.
fn size(terminal: impl std::os::fd::AsFd) -> (usize, usize) {
    let told = rustix::termios::tcgetwinsize(terminal).ok();
    let told = told.map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
    told.filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or(USUAL)
}

/// One line of figures.
fn line(monitor: &Monitor) -> String {
    let (all, rate, table) = (monitor.protocols.all, monitor.rates.current(), &monitor.table);
    format!(
        "{} packets, {} bytes, {:.0} packets/s, {:.0} bit/s, {} flows active, {} seen\n",
        all.packets,
        all.bytes,
        rate.packets_per_second,
        rate.bits_per_second,
        table.len(),
        table.counts.seen
    )
}

/// A screen: figures, applications in a row, flows as far as there is room.
fn screen(monitor: &Monitor, picked: &Picked, (rows, columns): (usize, usize)) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(&mut text, monitor);
    let applications: Vec<String> = picked
        .applications
        .iter()
        .map(|(name, by, share)| {
            let guess = if *by == Some("port") { "?" } else { "" };
            format!("{name}{guess} {}", share.traffic.packets)
        })
        .collect();
    let _ = writeln!(text, "\npackets by application   {}", applications.join("   "));
    let _ = write_flows(&mut text, monitor, &picked.flows);
    let mut out = String::from(HOME);
    // The last row stays free: an end of line there would scroll.
    let fits = text.lines().take(rows.saturating_sub(1).max(1));
    for shown in fits {
        out.extend(shown.chars().take(columns));
        let _ = writeln!(out, "{WIPE_LINE}");
    }
    out + WIPE_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use onvm_lib::wire::flow_hash;

    fn monitor() -> Monitor {
        let mut monitor = Monitor::new(Settings { top: 100, ..Settings::default() });
        for port in 0..50u8 {
            let mut frame = vec![2; 12];
            frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend([4, port, 0, 53, 0, 26, 0, 0]);
            frame.resize(60, 0);
            monitor.packet(&frame, 60, flow_hash(&frame), 1_000_000_000);
        }
        monitor
    }

    #[test]
    fn a_screen_is_no_larger_than_the_terminal() {
        for size in [(24, 80), (5, 20), (1, 1), (100, 200)] {
            let screen = screen(&monitor(), &Picked::of(&monitor()), size);
            let plain = screen.replace(HOME, "").replace(WIPE_LINE, "").replace(WIPE_BELOW, "");
            assert!(screen.starts_with(HOME) && screen.ends_with(WIPE_BELOW));
            assert!(plain.lines().count() < size.0.max(2), "{size:?}");
            assert!(plain.lines().all(|line| line.chars().count() <= size.1), "{size:?}");
        }
        assert!(
            screen(&monitor(), &Picked::of(&monitor()), (100, 200))
                .contains("10.0.0.1:1049 > 10.0.0.2:53 udp")
        );
    }

    #[test]
    fn a_line_has_no_escapes() {
        let line = line(&monitor());
        assert!(line.starts_with("50 packets, 3000 bytes, "), "{line}");
        assert!(line.ends_with("50 flows active, 50 seen\n") && !line.contains('\x1b'));
    }
}
