//! First matching rules: ours against DPDK's librte_acl, turn by turn on one processor, and by published figures
//! against TupleMerge.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use onvm_classifier::{Classifier, Header, NONE, Rule5};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

use crate::acl::Acl;
use crate::measure::{Contender, Effort, Error, Line, MPPS, Mark, Span, alternate, median};
use crate::rules::{self, RuleSet};

/// Where both run.
const CORE: u32 = 1;
/// Headers in a call, for both.
const BURST: usize = 64;
/// Of the better of both peers, on any set.
const LEAST: f64 = 0.8;
const MOST_BUILD_MS: f64 = 2000.0;
const MOST_CHANGE_US: f64 = 1000.0;

/// Published for a machine of this kind, in Mpps: DPDK ACL with AVX2, and TupleMerge, offline.
const PUBLISHED: &[(&str, f64, f64)] = &[
    ("acl1_1k", 25.8, 13.3),
    ("fw1_1k", 22.8, 5.9),
    ("acl1_10k", 29.9, 9.0),
    ("fw1_10k", 7.4, 14.1),
    ("ipc1_10k", 13.3, 2.8),
    ("acl1_100k", 5.5, 9.3),
    ("fw1_100k", 5.9, 6.4),
];

/// ClassBench's own sets.
pub(super) fn classbench(effort: Effort) -> Vec<Line> {
    match rules::names() {
        Ok(names) => all(names.iter().map(|name| rules::read(name)), effort),
        Err(error) => vec![Line::failed("classifier", error.to_string())],
    }
}

/// Sets made here, and some of them for IPv6.
pub(super) fn made(effort: Effort) -> Vec<Line> {
    let v4 = [1000, 10_000].into_iter().flat_map(|count| rules::KINDS.map(|kind| rules::made(kind, count)));
    let v6 = rules::KINDS.into_iter().map(|kind| rules::as_v6(&rules::made(kind, 10_000)));
    all(v4.chain(v6).map(Ok), effort)
}

fn all(sets: impl Iterator<Item = Result<RuleSet, Error>>, effort: Effort) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut of_best = Vec::new();
    for set in sets {
        // A thread of its own, so that nothing else is kept on the processor.
        let measured = std::thread::scope(|scope| {
            let measure = || set.and_then(|set| measure(&set, effort, &mut of_best));
            scope.spawn(measure).join().unwrap_or_else(|_| Err(Error::new("the thread has panicked")))
        });
        lines.extend(measured.unwrap_or_else(|error| vec![Line::failed("classifier", error.to_string())]));
    }
    if !of_best.is_empty() {
        let ahead = of_best.iter().filter(|ratio| **ratio > 1.0).count();
        let share = 100.0 * count(ahead) / count(of_best.len());
        lines.push(Line::new("sets ahead of the better peer", "%", share, Mark::AtLeast(50.0)));
    }
    lines
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn count(n: usize) -> f64 {
    n as f64
}

/// All lines of one set; adds the ratio to the better peer to `of_best`.
fn measure(set: &RuleSet, effort: Effort, of_best: &mut Vec<f64>) -> Result<Vec<Line>, Error> {
    let mut cpu = CpuSet::new();
    cpu.set(CORE as usize);
    rustix::thread::sched_setaffinity(None, &cpu).map_err(std::io::Error::from)?;
    let name = &set.name;
    let (ours, build) = timed(|| Classifier::build(&set.rules));
    let acl = Acl::start(set, CORE).map(RefCell::new);
    verify(set, &ours, acl.as_ref().ok())?;

    let changed = Changed::of(set);
    verify(set, &changed.classifier, None)?;
    let peer =
        acl.as_ref().map_or_else(ToString::to_string, |a| format!("DPDK ACL {}", a.borrow().algorithm));
    let contenders = [
        Contender::new(peer, |span| match &acl {
            Ok(acl) => acl.borrow_mut().rate(span),
            Err(error) => Err(Error::new(error.to_string())),
        }),
        Contender::new(format!("{name}, {} rules", set.rules.len()), |span| rate(&ours, &set.headers, span)),
        Contender::new(format!("{name}, an eighth changed"), |span| {
            rate(&changed.classifier, &set.headers, span)
        }),
    ];
    let span = Span { warm: Duration::from_millis(50), run: effort.span.run / 2 };
    let rounds = alternate(&contenders, Effort { span, ..effort });
    let mut first = rounds.line(1, &[0], MPPS, Mark::None);
    let published = PUBLISHED.iter().find(|(of, _, _)| of == name).map(|(_, dpdk, other)| other / dpdk);
    let mut lines = Vec::new();
    if let Some(ratio) = first.ratio {
        first.mark = Mark::Ratio(LEAST);
        let best = ratio / published.unwrap_or(0.0).max(1.0);
        of_best.push(best);
        let mut line = Line::new(format!("{name}, of the better peer"), "×", best, Mark::AtLeast(LEAST));
        line.floor = published.map(|ratio| ("TupleMerge/DPDK ACL, published".to_string(), ratio));
        lines.extend([first, line]);
    } else {
        lines.push(first);
    }
    lines.push(rounds.line(2, &[0], MPPS, Mark::None));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let mut built =
        Line::new(format!("{name}, build"), "ms", milliseconds(build), Mark::AtMost(MOST_BUILD_MS));
    let mut bytes = Line::new(format!("{name}, memory"), "kB", count(ours.bytes()) / 1e3, Mark::None);
    if let Ok(acl) = &acl {
        built.floor = Some(("DPDK ACL".into(), acl.borrow().seconds * 1e3));
        bytes.floor = Some(("DPDK ACL".into(), acl.borrow().bytes / 1e3));
    }
    let (middle, worst) = (microseconds(changed.median), microseconds(changed.worst));
    let mut change = Line::new(format!("{name}, worst change"), "µs", worst, Mark::AtMost(MOST_CHANGE_US));
    change.floor = Some(("median change".into(), middle));
    lines.extend([built, change, bytes]);
    Ok(lines)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

/// Everybody must find the same: what somebody else's linear search found, or, on a part, our own.
fn verify(set: &RuleSet, ours: &Classifier, acl: Option<&RefCell<Acl>>) -> Result<(), Error> {
    let mut found = vec![NONE; set.headers.len()];
    ours.classify_burst(&set.headers, &mut found);
    let linear = |header: &Header| {
        (0u32..).zip(&set.rules).find(|(_, rule)| rule.matches(header)).map_or(NONE, |(index, _)| index)
    };
    let own = || set.headers.iter().take(500).map(linear).collect();
    let golden = set.golden.clone().unwrap_or_else(own);
    differ(&set.name, "ours and the golden answers", &found, &golden)?;
    if let Some(acl) = acl {
        differ(&set.name, "ours and DPDK ACL", &found, &acl.borrow_mut().answers()?)?;
    }
    Ok(())
}

fn differ(set: &str, who: &str, left: &[u32], right: &[u32]) -> Result<(), Error> {
    let Some(at) = left.iter().zip(right).position(|(left, right)| left != right) else { return Ok(()) };
    let (line, left, right) = (at + 1, left[at], right[at]);
    Err(Error::new(format!("{set}: {who} differ on header {line}: {left} and {right}")))
}

/// Lookups a second.
fn rate(classifier: &Classifier, headers: &[Header], span: Span) -> Result<f64, Error> {
    let mut out = [NONE; BURST];
    let mut run = |time: Duration| {
        let (start, mut lookups) = (Instant::now(), 0);
        while start.elapsed() < time {
            for some in headers.chunks(BURST) {
                classifier.classify_burst(some, &mut out);
                std::hint::black_box(&out);
            }
            lookups += headers.len();
        }
        count(lookups) / start.elapsed().as_secs_f64()
    };
    run(span.warm);
    Ok(run(span.run))
}

/// A classifier of which an eighth of the rules was taken out and put in again, and what a change took of the
/// processor's time: others may run in between.
struct Changed {
    classifier: Classifier,
    median: Duration,
    worst: Duration,
}

impl Changed {
    fn of(set: &RuleSet) -> Changed {
        let mut classifier = Classifier::build(&set.rules);
        let rules = set.rules.len();
        let mut times = Vec::new();
        for i in 0..rules / 8 {
            let at = i.wrapping_mul(7919) % rules;
            let start = processor_time();
            let rule: Rule5 = classifier.remove(at);
            let middle = processor_time();
            classifier.insert(at, rule);
            times.extend([middle - start, processor_time() - middle].map(|time| time.as_secs_f64()));
        }
        let worst = times.iter().copied().fold(0.0, f64::max);
        let seconds = Duration::from_secs_f64;
        Changed { classifier, median: seconds(median(&times)), worst: seconds(worst) }
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}
