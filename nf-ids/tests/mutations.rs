//! Real captures, whole and broken in every way, through the whole engine: it ends, and nothing is left behind.

mod material;

use std::sync::Arc;

use nf_ids::app::Buffer;
use nf_ids::detect::{Alert, Detector, Sink, Tables, Watch};
use nf_ids::engine::{Detection, Engine, Inspection, Judgement, Mode, Settings};
use nf_ids::flow::Direction;
use nf_ids::rules::{Context, RuleSet};

/// Rounds of mutation of each capture.
const ROUNDS: u64 = 3;
/// Frames of a capture that are used.
const MOST_FRAMES: usize = 3000;

/// Looks at everything that there is to be looked at.
#[derive(Debug, Default)]
struct Reader {
    bytes: u64,
    ended: u64,
    pseudo: u64,
}

impl Detection for Reader {
    type FlowState = u64;

    fn wants_raw(&self) -> bool {
        true
    }

    fn inspect(&mut self, seen: &Inspection<'_>, flow: Option<&mut u64>) -> Judgement {
        let mut sum = seen.packet.payload.len() + seen.packet.ip_payload.len();
        if let Some(window) = seen.window {
            assert!(window.old < window.bytes.len(), "a window without anything new");
            assert!(window.bytes.len() <= 2 << 20, "{} bytes in a window", window.bytes.len());
            sum += window.bytes.len();
        }
        if let Some(app) = seen.app {
            assert!(app.memory() < 16 << 20, "{} bytes of a flow", app.memory());
            for id in app.transactions().take(3) {
                for direction in [Direction::ToServer, Direction::ToClient] {
                    let _ = app.progress(id, direction);
                    let uri = app.buffer(id, Buffer::HttpUri, direction, 0);
                    sum += uri.map_or(0, <[u8]>::len);
                }
                sum += app.describe(id).len();
            }
        }
        self.bytes += sum as u64;
        self.pseudo += u64::from(seen.packet.pseudo);
        if let Some(count) = flow {
            *count += 1;
        }
        Judgement::default()
    }

    fn flow_ended(&mut self, flow: &nf_ids::flow::Flow<nf_ids::engine::Kept<u64>>) {
        self.ended += 1;
        assert!(flow.packets.iter().sum::<u64>() > 0);
    }
}

/// Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).unwrap()
    }
}

/// Breaks a frame: bytes changed, cut, lengthened; mostly near the headers.
fn mutate(frame: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..dice.roll(4) {
        if frame.is_empty() {
            return;
        }
        let near = frame.len().min(if dice.roll(3) == 0 { usize::MAX } else { 80 });
        let at = dice.roll(near);
        match dice.roll(6) {
            0 => frame[at] = u8::try_from(dice.roll(256)).unwrap(),
            1 => frame[at] ^= 1 << dice.roll(8),
            2 => frame[at] = [0, 0xff, 0x7f, 0x80, 1][dice.roll(5)],
            3 => frame.truncate(at),
            4 => frame.insert(at, u8::try_from(dice.roll(256)).unwrap()),
            _ => {
                frame.remove(at);
            }
        }
    }
}

fn run(name: &str, frames: &[material::Frame], mode: Mode, dice: Option<&mut Dice>) -> u64 {
    let mut settings = Settings::of(mode);
    settings.ignore_checksums = true;
    settings.stream.midstream = true;
    settings.bounds.flows = 500;
    settings.bounds.stream_memory = 4 << 20;
    let mut engine = Engine::new(settings, Reader::default());
    let mut none = Dice(1);
    let changing = dice.is_some();
    let dice = dice.unwrap_or(&mut none);
    for frame in frames.iter().take(MOST_FRAMES) {
        let (mut data, mut time_ns) = (frame.data.clone(), frame.time_ns);
        if changing {
            mutate(&mut data, dice);
            if dice.roll(20) == 0 {
                continue;
            }
            if dice.roll(50) == 0 {
                time_ns = time_ns.wrapping_add(dice.roll(100_000_000_000) as u64);
            }
        }
        engine.packet(&data, time_ns);
        if changing && dice.roll(10) == 0 {
            engine.packet(&data, time_ns);
        }
        assert!(engine.stream_memory() <= 6 << 20, "{name}: {} bytes wait", engine.stream_memory());
        assert!(engine.flows() <= 500, "{name}: {} flows", engine.flows());
    }
    engine.finish();
    assert_eq!((engine.flows(), engine.stream_memory()), (0, 0), "{name}");
    assert_eq!(engine.flows_made().0, engine.detection.ended, "{name}: flows that ended without a word");
    engine.detection.bytes
}

#[test]
fn real_captures_whole_and_broken_go_through() {
    let Some(folder) = material::folder("pcaps") else { return };
    let paths = material::files(&folder);
    let (mut captures, mut bytes) = (0, 0);
    for (number, path) in paths.iter().enumerate() {
        let frames = material::frames(path);
        if frames.is_empty() {
            continue;
        }
        captures += 1;
        let name = path.display().to_string();
        for mode in [Mode::Ids, Mode::Inline] {
            bytes += run(&name, &frames, mode, None);
            for round in 0..ROUNDS {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64) << 8 ^ round);
                bytes += run(&name, &frames, mode, Some(&mut dice));
            }
        }
    }
    assert!(captures > 50 && bytes > 1_000_000, "{captures} captures, {bytes} bytes");
}

/// Counts alerts, and writes each.
#[derive(Debug, Default)]
struct Count(u64);

impl Sink for Count {
    fn alert(&mut self, alert: &Alert, seen: &Inspection<'_>) {
        assert!(alert.rule.sid > 0);
        self.0 += u64::from(seen.now_ns < u64::MAX);
    }
}

#[test]
fn real_rules_are_asked_about_broken_captures() {
    let (Some(folder), Some(ids)) = (material::folder("pcaps"), material::folder("ids")) else { return };
    let mut set = RuleSet::new(Context::default());
    set.add_file(&ids.join("etopen_1000.rules.gz")).unwrap();
    set.add_text("alert ip any any -> any any (msg:\"all\"; sid:1;)");
    let tables = Arc::new(Tables::new(set.rules).0);
    let mut alerts = 0;
    for (number, path) in material::files(&folder).iter().enumerate() {
        let frames = material::frames(path);
        for mode in [Mode::Ids, Mode::Inline] {
            let mut settings = Settings::of(mode);
            settings.ignore_checksums = true;
            settings.stream.midstream = true;
            let mut engine =
                Engine::new(settings, Watch::new(Detector::new(tables.clone()), Count::default()));
            let mut dice = Dice(0x2545_f491_4f6c_dd1d ^ number as u64);
            for frame in frames.iter().take(MOST_FRAMES / 4) {
                let mut data = frame.data.clone();
                mutate(&mut data, &mut dice);
                engine.packet(&data, frame.time_ns);
            }
            engine.finish();
            assert_eq!((engine.flows(), engine.stream_memory()), (0, 0));
            alerts += engine.detection.sink.0;
        }
    }
    assert!(alerts > 100, "{alerts} alerts");
}
