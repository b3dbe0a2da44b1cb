//! Samples, medians, and what a row of the table is.

use std::time::Duration;

/// Why a row could not be measured.
#[derive(Debug)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// How long one sample takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) warm: Duration,
    pub(crate) run: Duration,
}

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) span: Span,
    pub(crate) quick: bool,
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// What a figure has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// Nothing: for information.
    None,
    /// At least this many times the floor.
    Ratio(f64),
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Result<f64, String>,
    /// What it is measured against.
    pub(crate) floor: Option<(String, f64)>,
    /// Ours over the floor: the median of the rounds' ratios.
    pub(crate) ratio: Option<f64>,
    pub(crate) mark: Mark,
}

impl Line {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, ours: f64, mark: Mark) -> Self {
        Self { name: name.into(), unit, ours: Ok(ours), floor: None, ratio: None, mark }
    }

    pub(crate) fn failed(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let ours = Err(reason.into());
        Self { name: name.into(), unit: "", ours, floor: None, ratio: None, mark: Mark::None }
    }

    /// Whether the mark is met; none if there is no mark or no figure.
    pub(crate) fn met(&self) -> Option<bool> {
        let ours = self.ours.as_ref().ok()?;
        match self.mark {
            Mark::None => None,
            Mark::Ratio(least) => self.ratio.map(|ratio| ratio >= least),
            Mark::AtLeast(least) => Some(*ours >= least),
            Mark::AtMost(most) => Some(*ours <= most),
        }
    }
}

/// Something that can be measured again and again.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    pub(crate) measure: Box<dyn Fn(Span) -> Result<f64, Error> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: impl Into<String>, measure: impl Fn(Span) -> Result<f64, Error> + 'a) -> Self {
        Self { name: name.into(), measure: Box::new(measure) }
    }
}

/// What the rounds gave, contender by contender.
pub(crate) struct Rounds {
    names: Vec<String>,
    samples: Vec<Result<Vec<f64>, String>>,
}

/// Measures all contenders in turn, round after round, so that what disturbs one disturbs all.
pub(crate) fn alternate(contenders: &[Contender<'_>], effort: Effort) -> Rounds {
    let mut samples: Vec<Result<Vec<f64>, String>> = vec![Ok(Vec::new()); contenders.len()];
    for _ in 0..effort.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let Ok(so_far) = samples else { continue };
            match (contender.measure)(effort.span) {
                Ok(sample) => so_far.push(sample),
                Err(error) => *samples = Err(error.to_string()),
            }
        }
    }
    Rounds { names: contenders.iter().map(|c| c.name.clone()).collect(), samples }
}

impl Rounds {
    /// A line for a contender, scaled; against the best of `floors` in each round.
    pub(crate) fn line(&self, ours: usize, floors: &[usize], scale: Scale, mark: Mark) -> Line {
        let name = self.names[ours].clone();
        let samples = match &self.samples[ours] {
            Ok(samples) => samples,
            Err(reason) => return Line::failed(name, reason.clone()),
        };
        let mut line = Line::new(name, scale.unit, (scale.of)(median(samples)), mark);
        let present = floors.iter().filter_map(|f| self.samples[*f].as_ref().ok().map(|s| (*f, s)));
        let best = present.max_by(|a, b| median(a.1).total_cmp(&median(b.1)));
        if let Some((index, floor)) = best {
            let ratios: Vec<f64> = samples.iter().zip(floor).map(|(ours, floor)| ours / floor).collect();
            line.floor = Some((self.names[index].clone(), (scale.of)(median(floor))));
            line.ratio = Some(median(&ratios));
        }
        line
    }
}

/// How packets a second are shown.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) unit: &'static str,
    pub(crate) of: fn(f64) -> f64,
}

pub(crate) const MPPS: Scale = Scale { unit: "Mpps", of: |rate| rate / 1e6 };
/// Time between two packets; with one packet under way, the time of its round.
pub(crate) const NANOSECONDS: Scale = Scale { unit: "ns", of: |rate| 1e9 / rate };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let rounds = Rounds {
            names: vec!["ours".into(), "floor".into()],
            samples: vec![Ok(vec![1e6, 2e6, 4e6]), Ok(vec![2e6, 4e6, 4e6])],
        };
        let line = rounds.line(0, &[1], MPPS, Mark::Ratio(0.6));
        assert_eq!((line.ours.clone(), line.ratio), (Ok(2.0), Some(0.5)));
        assert_eq!(line.floor.clone().map(|f| f.1), Some(4.0));
        assert_eq!(line.met(), Some(false));
    }
}
