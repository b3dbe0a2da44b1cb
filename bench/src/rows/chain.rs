//! Chains whose NFs share one core; headers are touched at every hop.

use crate::bare::Floor;
use crate::measure::{Contender, Effort, Error, Line, MPPS, Mark, Span, alternate};
use crate::platform::{Platform, sent};

fn ours(length: usize, span: Span) -> Result<f64, Error> {
    let chain = (1..=length).map(|id| id.to_string()).collect::<Vec<_>>();
    let joined = chain.join(",");
    let mut platform = Platform::start(&["--port", "gen:", "--port", "null:", "--chain", joined.as_str()])?;
    for id in &chain {
        platform.add("nf-forward", &["-r", id.as_str(), "-s", "-m", "1", "--decrement-ttl"])?;
    }
    platform.wait_for(length)?;
    platform.rate(span, sent)
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let bare = |nodes| move |span| Floor { nodes, batch: 64, wide: true }.measure(span);
    let contenders = [
        Contender::new("bare chain of 3 on one core", bare(3)),
        Contender::new("chain of 3 on one core", |span| ours(3, span)),
        Contender::new("bare chain of 5 on one core", bare(5)),
        Contender::new("chain of 5 on one core", |span| ours(5, span)),
    ];
    let rounds = alternate(&contenders, effort);
    vec![rounds.line(1, &[0], MPPS, Mark::Ratio(0.85)), rounds.line(3, &[2], MPPS, Mark::Ratio(0.85))]
}
