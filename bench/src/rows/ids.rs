//! The IDS: one thread over a mix of real captures in memory, without rules, with 1,000 for raw content, with all of a
//! real rule set; against Suricata's figures, and against Suricata itself where it is installed.

mod mix;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nf_ids::detect::{Detector, Watch};
use nf_ids::engine::{Detection, Engine, Mode, Settings};
use onvm_lib::capture::{Frame, LinkType, Writer};

use mix::{Compiled, Deaf, Nothing, folder, processor_time};

use crate::measure::{Contender, Effort, Error, Line, MPPS, Mark, Rounds, Span, alternate};

/// Constants, not measured here: a thread of Suricata with 1,000 raw rules on a machine of this kind, in Mpps, by its way
/// of looking for many patterns. Of packets of 314 bytes.
const AHO_CORASICK: f64 = 0.35;
const HYPERSCAN: f64 = 0.48;
const MOST_LOAD_S: f64 = 10.0;
const MOST_LOAD_MB: f64 = 1000.0;
/// Files of rules, and what the table calls them.
const RAW: (&str, &str) = ("etopen_1000_raw.rules.gz", "1,000 raw");
const ALL: (&str, &str) = ("etopen_2019_active.rules.gz", "all rules");

/// Packets and their times.
struct Mix {
    frames: Vec<(Vec<u8>, u64)>,
}

impl Mix {
    /// Bytes of a packet, on average.
    fn mean(&self) -> f64 {
        count(self.frames.iter().map(|(frame, _)| frame.len()).sum()) / count(self.frames.len())
    }

    /// Packets a second of this thread's time: what else runs does not count.
    fn rate<D: Detection>(&self, mode: Mode, detection: impl Fn() -> D, span: Span) -> f64 {
        let mut settings = Settings::of(mode);
        settings.ignore_checksums = true;
        let (started, mut packets, mut spent) = (Instant::now(), 0, Duration::ZERO);
        while spent < span.run && started.elapsed() < span.run * 10 {
            let mut engine = Engine::new(settings.clone(), detection());
            let before = processor_time();
            for (frame, time_ns) in &self.frames {
                std::hint::black_box(engine.packet(frame, *time_ns));
            }
            engine.finish();
            spent += processor_time() - before;
            packets += self.frames.len();
        }
        count(packets) / spent.as_secs_f64()
    }

    /// Writes the first packets into a capture.
    fn write(&self, path: &Path, most: usize) -> Result<(), Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::new(error.to_string());
        let mut writer = Writer::create(path).map_err(|e| wrong(&e))?;
        let interface = writer.add_interface(LinkType::Ethernet, "mix").map_err(|e| wrong(&e))?;
        for (data, timestamp_ns) in self.frames.iter().take(most) {
            let original_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let timestamp_ns = *timestamp_ns;
            let frame = Frame { timestamp_ns, original_len, link_type: LinkType::Ethernet, interface, data };
            writer.write_frame(&frame).map_err(|e| wrong(&e))?;
        }
        writer.finish().map_err(|e| wrong(&e))
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact at this size")]
fn count(n: usize) -> f64 {
    n as f64
}

/// All lines.
pub(super) fn run(effort: Effort) -> Vec<Line> {
    match measure(effort) {
        Ok(lines) => lines,
        Err(error) => vec![Line::failed("ids", error.to_string())],
    }
}

fn measure(effort: Effort) -> Result<Vec<Line>, Error> {
    let mix = Mix { frames: mix::frames().map_err(Error::new)? };
    let (raw, all) = (Compiled::read(RAW.0), Compiled::read(ALL.0));
    let peers = Suricata::found().map(|peer| (peer, tempfile::tempdir()));
    let mut contenders = Vec::new();
    for (mode, how) in [(Mode::Ids, "offline"), (Mode::Inline, "in line")] {
        let mix = &mix;
        contenders.push(Contender::new(format!("no rules, {how}"), move |span| {
            Ok(mix.rate(mode, || Nothing, span))
        }));
        for (rules, name) in [(&raw, RAW.1), (&all, ALL.1)] {
            contenders.push(Contender::new(format!("{name}, {how}"), move |span| match rules {
                Ok(Compiled { tables, .. }) => {
                    Ok(mix.rate(mode, || Watch::new(Detector::new(tables.clone()), Deaf), span))
                }
                Err(error) => Err(Error::new(error.to_string())),
            }));
        }
    }
    let ours = contenders.len();
    if let Some((path, Ok(room))) = &peers {
        let suricata = Suricata::prepare(path, room.path(), &mix);
        for algorithm in ["ac", "hs"] {
            let name = format!("Suricata {algorithm}, 1,000 raw rules");
            let asked = suricata.clone();
            contenders.push(Contender::new(name, move |_| match &asked {
                Ok(suricata) => suricata.rate(algorithm),
                Err(error) => Err(Error::new(error.clone())),
            }));
        }
    }
    let rounds = alternate(&contenders, effort);
    let mut lines = rates(&rounds, ours, contenders.len(), mix.mean());
    if let Ok(all) = &all {
        let seconds = Line::new("all rules, loaded", "s", all.seconds, Mark::AtMost(MOST_LOAD_S));
        lines.push(seconds);
        lines.push(Line::new("all rules, memory", "MB", all.megabytes, Mark::AtMost(MOST_LOAD_MB)));
    }
    Ok(lines)
}

/// The lines of all contenders; the first `ours` are of the IDS.
fn rates(rounds: &Rounds, ours: usize, all: usize, mean: f64) -> Vec<Line> {
    let peers: Vec<usize> = (ours..all).collect();
    let mut lines = Vec::new();
    for index in 0..ours {
        let with_raw = index % 3 == 1;
        let mark = if with_raw && !peers.is_empty() { Mark::Ratio(1.0) } else { Mark::None };
        let line = rounds.line(index, if with_raw { &peers } else { &[] }, MPPS, mark);
        let (name, rate) = (line.name.clone(), line.ours.clone());
        lines.push(line);
        let Ok(rate) = rate else { continue };
        lines.push(Line::new(format!("{name}, bits"), "Gbps", rate * mean * 8.0 / 1e3, Mark::None));
        if with_raw {
            for (peer, figure, least) in [("AC", AHO_CORASICK, 2.0), ("Hyperscan", HYPERSCAN, 1.0)] {
                let what = format!("{name}, of {peer}");
                let mut line = Line::new(what, "×", rate / figure, Mark::AtLeast(least));
                line.floor = Some((format!("Mpps, Suricata {peer}, a constant"), figure));
                lines.push(line);
            }
        }
    }
    lines.extend(peers.iter().map(|peer| rounds.line(*peer, &[], MPPS, Mark::None)));
    lines
}

/// The peer, where it is installed.
#[derive(Clone)]
struct Suricata {
    path: PathBuf,
    rules: PathBuf,
    /// All packets, and only the first.
    captures: [PathBuf; 2],
    logs: PathBuf,
    packets: usize,
}

impl Suricata {
    fn found() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("suricata")).find(|path| path.is_file())
    }

    /// Writes what it reads.
    fn prepare(path: &Path, room: &Path, mix: &Mix) -> Result<Suricata, String> {
        let (rules, logs) = (room.join("raw.rules"), room.to_path_buf());
        let captures = [room.join("mix.pcap"), room.join("one.pcap")];
        let prepare = || -> Result<(), Error> {
            let packed = std::fs::File::open(folder().join("ids").join(RAW.0))?;
            let out = std::fs::File::create(&rules)?;
            Command::new("gzip").arg("-dc").stdin(packed).stdout(out).status()?;
            mix.write(&captures[0], usize::MAX)?;
            mix.write(&captures[1], 1)
        };
        prepare().map_err(|error| error.to_string())?;
        Ok(Suricata { path: path.to_path_buf(), rules, captures, logs, packets: mix.frames.len() })
    }

    /// Packets a second: what all packets take longer than only the first.
    fn rate(&self, algorithm: &str) -> Result<f64, Error> {
        let long = self.time(algorithm, &self.captures[0])?;
        let short = self.time(algorithm, &self.captures[1])?;
        Ok(count(self.packets) / long.saturating_sub(short).as_secs_f64().max(1e-9))
    }

    fn time(&self, algorithm: &str, capture: &Path) -> Result<Duration, Error> {
        let mut command = Command::new(&self.path);
        command.args(["--runmode", "single", "-k", "none", "--set"]).arg(format!("mpm-algo={algorithm}"));
        command.arg("-r").arg(capture).arg("-S").arg(&self.rules).arg("-l").arg(&self.logs);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let status = command.status()?;
        if status.success() {
            Ok(started.elapsed())
        } else {
            Err(Error::new(format!("suricata with {algorithm} ended with {status}")))
        }
    }
}
