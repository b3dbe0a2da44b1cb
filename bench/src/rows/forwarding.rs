//! What is measured of whoever forwards, and how two of them are compared: rates, and processor time for each packet.

use std::time::{Duration, Instant};

use crate::measure::{Effort, Error, Line, Mark, Span, median};

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Packets a second.
    pub(super) rate: f64,
    /// Nanoseconds of processor time for each.
    pub(super) cpu_ns: f64,
}

/// Looks at something that forwards, twice: moment, processor time used, packets.
pub(super) fn sample(
    span: Span,
    mut look: impl FnMut() -> Result<(Instant, Duration, u64), Error>,
) -> Result<Sample, Error> {
    std::thread::sleep(span.warm);
    let (started, cpu, packets) = look()?;
    std::thread::sleep(span.run);
    let (ended, more_cpu, more_packets) = look()?;
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    let count = (more_packets - packets) as f64;
    if count == 0.0 {
        return Err(Error::new("no packet moved"));
    }
    let rate = count / (ended - started).as_secs_f64();
    Ok(Sample { rate, cpu_ns: (more_cpu - cpu).as_secs_f64() * 1e9 / count })
}

/// One of those that are measured in turn.
pub(super) type Contender<'a> = Box<dyn Fn(Span) -> Result<Sample, Error> + 'a>;

/// What the rounds gave of one, or why nothing.
pub(super) type Samples = Result<Vec<Sample>, String>;

/// All in turn, round after round; who fails once is left out from then on.
pub(super) fn alternate(contenders: &[Contender<'_>], effort: Effort) -> Vec<Samples> {
    let mut all: Vec<Samples> = vec![Ok(Vec::new()); contenders.len()];
    for _ in 0..effort.rounds {
        for (contender, samples) in contenders.iter().zip(&mut all) {
            let Ok(so_far) = samples else { continue };
            match contender(effort.span) {
                Ok(sample) => so_far.push(sample),
                Err(error) => *samples = Err(error.to_string()),
            }
        }
    }
    all
}

/// The best of several by the median of its rates.
pub(super) fn best<'a>(
    of: impl IntoIterator<Item = (&'a str, &'a Samples)>,
) -> Option<(&'a str, &'a Samples)> {
    let rate = |samples: &Samples| {
        let rates: Vec<f64> = samples.iter().flatten().map(|sample| sample.rate).collect();
        if rates.is_empty() { 0.0 } else { median(&rates) }
    };
    of.into_iter().max_by(|a, b| rate(a.1).total_cmp(&rate(b.1)))
}

/// A line for the rate and one for processor time, against a peer's of the same rounds; one that says why if there is none.
pub(super) fn compared(
    name: &str,
    ours: &Samples,
    (peer, theirs): (&str, &Samples),
    mark: Mark,
) -> Vec<Line> {
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(why), _) => return vec![Line::failed(name, why.clone())],
        (_, Err(why)) => return vec![Line::failed(name, format!("{peer}: {why}"))],
    };
    let line = |name: String, unit, figure: fn(&Sample) -> f64, mark| {
        let of = |samples: &[Sample]| median(&samples.iter().map(figure).collect::<Vec<_>>());
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, peer)| figure(ours) / figure(peer)).collect();
        Line {
            floor: Some((peer.into(), of(theirs))),
            ratio: Some(median(&ratios)),
            ..Line::new(name, unit, of(ours), mark)
        }
    };
    vec![
        line(name.into(), "Mpps", |sample| sample.rate / 1e6, mark),
        line(format!("{name}, CPU"), "ns", |sample| sample.cpu_ns, Mark::None),
    ]
}
