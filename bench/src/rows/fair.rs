//! NFs of unequal cost on one core, with more to do than there is time: who gets what, and what work is wasted; with and
//! without shares and backpressure at the entry.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::measure::{Effort, Error, Line, Mark, median};
use crate::platform::Platform;

/// Packets a second that come for each chain.
const RATE: u32 = 1_000_000;
/// Time in which shares settle.
const SETTLE: Duration = Duration::from_secs(4);

/// Chains as cycles of their NFs, each with a port of its own.
struct Scene {
    name: &'static str,
    chains: &'static [&'static [u32]],
}

const SCENES: [Scene; 2] = [
    Scene { name: "", chains: &[&[50], &[270], &[550], &[10_000]] },
    Scene { name: "50 before ", chains: &[&[50, 10_000], &[50, 270]] },
];

impl Scene {
    /// The chain file; NFs that cost the same stand in each chain for themselves.
    fn file(&self) -> String {
        let (mut ports, mut services, mut chains, mut rules) = <(String, String, String, String)>::default();
        let mut id = 0;
        for (index, costs) in self.chains.iter().enumerate() {
            let mut hops = Vec::new();
            for cycles in *costs {
                id += 1;
                hops.push(format!("s{id}"));
                let command = format!("[cost_nf, --cycles, {cycles}]");
                let _ = writeln!(
                    services,
                    "  s{id}: {{id: {id}, command: {command}, core: 1, shared-core: true}}"
                );
            }
            let _ = writeln!(ports, "  - gen:rate={RATE},flows=8,seed={}", index * 1000);
            let _ = writeln!(chains, "  c{index}: [{}]", hops.join(", "));
            let _ = writeln!(rules, "  - {{input-port: {index}, chain: c{index}}}");
        }
        format!("ports:\n{ports}services:\n{services}chains:\n{chains}rules:\n{rules}default-chain: c0\n")
    }

    /// Packets a second of each chain, and the part of all packets that NFs worked on and that were dropped later.
    fn measure(&self, fair: &str, run: Duration) -> Result<Vec<f64>, Error> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("chain.yaml");
        std::fs::write(&path, self.file())?;
        let path = path.display().to_string();
        let platform = Platform::start(&["--config", path.as_str(), "--fair", fair])?;
        platform.wait_for(self.chains.iter().map(|costs| costs.len()).sum())?;
        std::thread::sleep(SETTLE);
        let before = platform.stats()?;
        std::thread::sleep(run);
        let after = platform.stats()?;
        let more = |figure: &dyn Fn(&Value) -> f64| figure(&after) - figure(&before);
        let time = more(&|stats| stats["uptime_s"].as_f64().unwrap_or(0.0));
        let mut figures = Vec::new();
        let mut last = 0;
        for costs in self.chains {
            last += costs.len();
            figures.push(more(&|stats| received(stats, last)) / time);
        }
        let wasted = more(&|stats| stats["backpressure"]["wasted"].as_f64().unwrap_or(0.0));
        figures.push(wasted / (wasted + figures.iter().sum::<f64>() * time) * 100.0);
        Ok(figures)
    }

    fn names(&self) -> Vec<String> {
        let one = |costs: &&[u32]| {
            let last = costs.last().copied().unwrap_or(0);
            format!("{}{last} cycles", if costs.len() > 1 { self.name } else { "" })
        };
        self.chains.iter().map(one).collect()
    }
}

fn received(stats: &Value, service: usize) -> f64 {
    let all = stats["instances"].as_array().into_iter().flatten();
    all.filter(|i| i["service"] == service).filter_map(|i| i["received"].as_f64()).sum()
}

pub(super) fn run(effort: Effort) -> Vec<Line> {
    let mut lines = Vec::new();
    for scene in SCENES {
        for fair in ["off", "auto"] {
            let rounds: Result<Vec<Vec<f64>>, Error> =
                (0..effort.rounds).map(|_| scene.measure(fair, effort.span.run)).collect();
            let what = if fair == "off" { "without" } else { "with" };
            let rounds = match rounds {
                Ok(rounds) => rounds,
                Err(error) => {
                    lines.push(Line::failed(format!("chains that share a core, {what}"), error.to_string()));
                    continue;
                }
            };
            let figure = |index: usize| median(&rounds.iter().map(|r| r[index]).collect::<Vec<_>>());
            for (index, name) in scene.names().into_iter().enumerate() {
                let name = format!("shared core, chain of {name}, {what}");
                lines.push(Line::new(name, "Mpps", figure(index) / 1e6, Mark::None));
            }
            let mark = if fair == "off" { Mark::None } else { Mark::AtMost(1.0) };
            let name = format!("shared core, {}work wasted, {what}", scene.name);
            lines.push(Line::new(name, "%", figure(scene.chains.len()), mark));
        }
    }
    lines
}
