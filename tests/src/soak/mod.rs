//! The soak: NFs are killed, hung, scaled, replaced and steered at random for minutes, chains change, managers die, and
//! traffic goes on.
//!
//! ```text
//! gen: numbered packets ──rules──▶ chains of forward, monitor, hold, gate ──▶ judge of order ──▶ null:
//! pcap: captures        ──rules──▶ monitor, mirror (copies go to `copies`) ──▶ judge ──▶ null:
//! pcap: ebb and flood   ──rule───▶ tidal, which the manager scales by its load ──▶ null:
//! ```
//! After each operation the manager must come to the state that is wanted, packets must flow, the audit must balance, no
//! numbered packet may have come after a later one of its flow, and none may be missing that was not dropped for a reason.
//! Now and then everything goes back to how it began, and then no process may have grown.

mod books;
mod lateness;
mod memory;
mod network;
mod operation;
mod report;
mod site;
mod tide;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Dice, Lab};
use operation::Operation;
use site::Site;

pub use books::Sums;
pub use memory::Sample;
pub use report::{Report, Violation};
pub use tide::Tides;

/// Operations between two looks at what processes take.
const HOME_EVERY: usize = 12;

/// What a soak is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long it lasts.
    pub seconds: u64,
    /// What the choices depend on.
    pub seed: u64,
    /// Numbered packets per second.
    pub rate: u64,
    /// Print what is done.
    pub verbose: bool,
    /// Names of operations to leave out.
    pub without: Vec<String>,
}

/// Runs one.
///
/// # Errors
/// Why it could not begin.
pub fn run(options: &Options) -> Result<Report, String> {
    let lab = Lab::new();
    let captures = captures(&lab);
    tide::capture(&lab.path("tide.pcap"))?;
    let dice = Dice::from_seed(options.seed);
    let mut site = Site::new(lab, dice, &captures, options.rate, options.seconds)?;
    site.verbose = options.verbose;
    let mut doing = "start";
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        soak(&mut site, options.seconds, &options.without, &mut doing)
    }));
    let failed = match ended {
        Ok(ended) => ended.err(),
        Err(panic) => Some(words(&*panic)),
    };
    let violation = failed.map(|what| {
        site.say(&format!("VIOLATION: {what}"));
        site.dump();
        let panicked = site.look_for_panics().err().map(|p| format!("\n{p}")).unwrap_or_default();
        Violation {
            what: what + &panicked,
            operation: doing.into(),
            at_s: site.began.elapsed().as_secs_f64(),
            directory: site.lab.keep().display().to_string(),
        }
    });
    site.clear();
    Ok(Report {
        seed: options.seed,
        seconds: site.began.elapsed().as_secs_f64(),
        sums: site.books.sums(),
        excused: site.excused,
        starved: site.starved,
        late: site.lateness.longest,
        longest_gap_us: site.books.longest_gap_us,
        nf_growth: site.memory.growth(),
        tides: site.tides,
        times: site.times,
        managers: site.managers,
        violation,
    })
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").into()
}

fn soak(site: &mut Site, seconds: u64, without: &[String], doing: &mut &'static str) -> Result<(), String> {
    site.settle()?;
    site.check()?;
    site.go_home()?;
    let end = site.began + Duration::from_secs(seconds);
    // Each of them once, in any order, before they come by chance.
    let mut first = Operation::ALL.to_vec();
    for i in (1..first.len()).rev() {
        first.swap(i, site.dice.index(i + 1));
    }
    first.retain(|operation| !without.iter().any(|name| name == operation.name()));
    let mut done = 0;
    // On a slow machine each of them once takes longer than was asked for.
    while Instant::now() < end || !first.is_empty() {
        let operation = first.pop().unwrap_or_else(|| Operation::any(&mut site.dice));
        if without.iter().any(|name| name == operation.name()) {
            continue;
        }
        *doing = operation.name();
        site.perform(operation)?;
        // After a storm its replacements may still have died; from here on nothing dies by chance.
        site.storm = false;
        done += 1;
        if done % HOME_EVERY == 0 {
            *doing = "home";
            site.go_home()?;
        }
        std::thread::sleep(Duration::from_millis(site.dice.below(200)));
    }
    *doing = "end";
    site.go_home()?;
    site.wait_for_tides()?;
    site.end()
}

/// Captures to replay: the project's own, and one of those that lie beside it, if they are there.
fn captures(lab: &Lab) -> Vec<PathBuf> {
    let mut all = vec![crate::sample()];
    let beside = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/pcaps/pcpp/Tests__ExamplesTest__pcap_examples__tls2.pcap");
    if beside.exists() && std::fs::copy(&beside, lab.path("beside.pcap")).is_ok() {
        all.push(lab.path("beside.pcap"));
    }
    all
}
