//! nf-speedtest: round and round, as fast as it goes; and one packet alone.

use crate::bare::Floor;
use crate::measure::{Contender, Effort, Error, Line, MPPS, Mark, NANOSECONDS, Span, alternate};
use crate::platform::{Platform, received_by};

/// What openNetVM reaches to a second core and back, on a machine of this kind, in Mpps.
const LEAST_THERE_AND_BACK: f64 = 38.5;
/// Half of what openNetVM needs, in nanoseconds.
const MOST_SELF_LOOP: f64 = 167.0;
const MOST_ROUND_TRIP: f64 = 250.0;

fn circle(packets: u32, partner: bool, span: Span) -> Result<f64, Error> {
    let mut platform = Platform::start(&["--stay"])?;
    let packets = packets.to_string();
    let common = ["-r", "1", "--latency-every", "0", "-c", packets.as_str()];
    if partner {
        platform.add("nf-forward", &["-r", "2", "-d", "1", "-m", "1"])?;
        platform.wait_for(1)?;
        platform.add("nf-speedtest", &[&common[..], &["-d", "2", "-m", "0"]].concat())?;
    } else {
        platform.add("nf-speedtest", &[&common[..], &["-d", "1", "-m", "1"]].concat())?;
    }
    platform.rate(span, |stats| received_by(stats, "nf-speedtest"))
}

/// Packets that are written nowhere, only their descriptors: against entries one way over a bare ring.
pub(super) fn to_itself(effort: Effort) -> Vec<Line> {
    let contenders = [
        Contender::new("bare ring 16 B one way, 64", |span| Floor::stream(64, true).measure(span)),
        Contender::new("bare ring 16 B one way, 32", |span| Floor::stream(32, true).measure(span)),
        Contender::new("bare ring 8 B one way, 64", |span| Floor::stream(64, false).measure(span)),
        Contender::new("self loop, 128 packets", |span| circle(128, false, span)),
        Contender::new("self loop, 1024 packets", |span| circle(1024, false, span)),
        Contender::new("self loop, 16000 packets", |span| circle(16_000, false, span)),
    ];
    let rounds = alternate(&contenders, effort);
    let mut lines = vec![rounds.line(2, &[0], MPPS, Mark::None)];
    lines.extend((3..6).map(|ours| rounds.line(ours, &[0, 1], MPPS, Mark::Ratio(0.8))));
    lines
}

pub(super) fn there_and_back(effort: Effort) -> Vec<Line> {
    let contenders = [
        Contender::new("bare rings there and back", |span| Floor::hop(64, true).measure(span)),
        Contender::new("there and back, 128 packets", |span| circle(128, true, span)),
        Contender::new("there and back, 1024 packets", |span| circle(1024, true, span)),
    ];
    let rounds = alternate(&contenders, effort);
    let least = Mark::AtLeast(LEAST_THERE_AND_BACK);
    vec![rounds.line(1, &[0], MPPS, Mark::None), rounds.line(2, &[0], MPPS, least)]
}

pub(super) fn alone(effort: Effort) -> Vec<Line> {
    let contenders = [
        Contender::new("one packet, self loop", |span| circle(1, false, span)),
        Contender::new("one packet, two cores", |span| circle(1, true, span)),
    ];
    let rounds = alternate(&contenders, effort);
    vec![
        rounds.line(0, &[], NANOSECONDS, Mark::AtMost(MOST_SELF_LOOP)),
        rounds.line(1, &[], NANOSECONDS, Mark::AtMost(MOST_ROUND_TRIP)),
    ]
}
