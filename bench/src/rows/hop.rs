//! One hop: the manager on one core, one NF on the other, 64-byte packets.

use std::process::Command;

use crate::bare::Floor;
use crate::measure::{Contender, Effort, Error, Line, MPPS, Mark, Span, alternate};
use crate::platform::{Platform, program, sent};

/// What openNetVM reaches on a machine of this kind, null port → NF → null port.
const LEAST_PLAIN: f64 = 20.0;

/// Rate of `gen: → nf-forward → null:`.
pub(super) fn ours(arguments: &[&str], span: Span) -> Result<f64, Error> {
    let mut platform = Platform::start(&["--port", "gen:", "--port", "null:"])?;
    let arguments = [&["-r", "1", "-m", "1"], arguments].concat();
    platform.add("nf-forward", &arguments)?;
    platform.wait_for(1)?;
    platform.rate(span, sent)
}

/// DPDK's ring between two processes, with the same touches.
fn dpdk(span: Span) -> Result<f64, Error> {
    let program = program("dpdk-ring-pair").map_err(|_| Error::new("libdpdk-dev is missing"))?;
    let times = [span.warm, span.run].map(|d| d.as_millis().to_string());
    let mut why = String::new();
    for pages in ["huge", "plain"] {
        let output = Command::new(&program).args(&times).arg(pages).output()?;
        if let Ok(rate) = String::from_utf8_lossy(&output.stdout).trim().parse() {
            return Ok(rate);
        }
        why = String::from_utf8_lossy(&output.stderr).trim().to_string();
    }
    Err(Error::new(why))
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let bare = |batch, wide| move |span| Floor::hop(batch, wide).measure(span);
    let contenders = [
        Contender::new("bare ring 16 B, bursts of 64", bare(64, true)),
        Contender::new("bare ring 16 B, bursts of 32", bare(32, true)),
        Contender::new("bare ring 8 B, bursts of 64", bare(64, false)),
        Contender::new("DPDK rte_ring, two processes", dpdk),
        Contender::new("one hop, TTL written", |span| ours(&["--decrement-ttl"], span)),
        Contender::new("one hop, plain", |span| ours(&[], span)),
    ];
    let rounds = alternate(&contenders, effort);
    let mut against_dpdk = rounds.line(4, &[3], MPPS, Mark::Ratio(1.0));
    if against_dpdk.floor.is_none() {
        against_dpdk = rounds.line(3, &[], MPPS, Mark::None);
    }
    vec![
        rounds.line(2, &[0], MPPS, Mark::None),
        rounds.line(1, &[0], MPPS, Mark::None),
        rounds.line(3, &[0], MPPS, Mark::None),
        rounds.line(4, &[0, 1], MPPS, Mark::Ratio(0.85)),
        against_dpdk,
        rounds.line(5, &[0, 1], MPPS, Mark::AtLeast(LEAST_PLAIN)),
    ]
}
