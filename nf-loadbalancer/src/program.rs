//! The network function: options, reloading, health checks, and the balancer on the packets' path.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use onvm_lib::prelude::*;
use onvm_lib::reload::{self, Reloader};

use crate::balancer::Balancer;
use crate::config::{self, Config};
use crate::health::{self, Checker};
use crate::report;
use crate::state::State;

/// Options of its own.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Services and their backends, in YAML
    #[arg(long, value_name = "FILE")]
    services: PathBuf,

    /// Read the file anew whenever it changes
    #[arg(long)]
    watch: bool,

    /// Say what is wrong with the file, and do nothing else: exit code 0 if it can be used, 1 if not
    #[arg(long)]
    check: bool,

    /// Balance what tunnels (IP in IP, GRE, VXLAN, Geneve) carry, in its tunnel; only for services in mode nat
    #[arg(long)]
    inner: bool,

    /// Make no health checks; backends are believed to be up
    #[arg(long)]
    no_health_checks: bool,
}

/// The program.
#[derive(Debug)]
pub struct LoadBalancer {
    balancer: Balancer,
    /// None in a replay.
    reloader: Option<Reloader<Config>>,
    checker: Option<Checker>,
    now_ns: u64,
}

/// Reads the file, and checks what only this process can: whether it may do what the file wants.
fn compile(path: &Path, checks: bool, inner: bool) -> Result<Config, String> {
    let config = config::load(path)?;
    if inner {
        config::only_translates(&config).map_err(|reason| format!("{}: {reason}", path.display()))?;
    }
    if checks {
        health::permitted(&config).map_err(|reason| format!("{}: {reason}", path.display()))?;
    }
    Ok(config)
}

impl LoadBalancer {
    /// Has the checker follow what is to be checked.
    fn follow_targets(&mut self) {
        if self.balancer.take_targets_change()
            && let Some(checker) = &self.checker
        {
            checker.check(self.balancer.targets());
        }
    }

    /// News from the threads beside, between two bursts.
    #[inline]
    fn hear(&mut self) {
        if let Some(reloader) = &mut self.reloader
            && let Some(fresh) = reloader.take()
        {
            self.balancer.replace(fresh, self.now_ns);
        }
        self.balancer.refresh(self.now_ns);
    }
}

impl NetworkFunction for LoadBalancer {
    type Options = Options;
    type Access = ReadWrite;
    type State = State;
    const NAME: &'static str = "nf-loadbalancer";
    const ABOUT: &'static str =
        "Spreads connections over servers: NAT, direct return or tunnels; Maglev hashing; health checks";
    /// Questions about Ethernet addresses, and fragments.
    const EMITS: bool = true;
    const STATE_VERSION: u32 = 1;
    const TICK: Duration = Duration::from_millis(100);
    const ALONE: &'static [&'static str] = &["check"];

    fn alone(options: &Options, json: bool) -> Option<ExitCode> {
        options.check.then(|| check(options, json))
    }

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        let checks = !setup.replay && !options.no_health_checks;
        let inner = options.inner;
        if setup.replay {
            // The same capture gives the same packets: no clock, no thread, no chance.
            let config = compile(&options.services, false, inner)?;
            let mut balancer = Balancer::new(config);
            if inner {
                balancer.enter_tunnels();
            }
            return Ok(Self { balancer, reloader: None, checker: None, now_ns: 0 });
        }
        let paths = [options.services.clone()];
        let (config, reloader) =
            Reloader::start(&paths, options.watch, move |path| compile(path, checks, inner))?;
        let seed = setup.instance.map_or(1, |id| u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut balancer = Balancer::live(config, seed).map_err(|e| format!("cannot start a thread: {e}"))?;
        if inner {
            balancer.enter_tunnels();
        }
        let checker = if checks {
            Some(Checker::start().map_err(|e| format!("cannot start a thread: {e}"))?)
        } else {
            None
        };
        let mut program = Self { balancer, reloader: Some(reloader), checker, now_ns: 0 };
        program.follow_targets();
        Ok(program)
    }

    #[inline]
    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.now_ns = burst.now_ns();
        self.hear();
        self.balancer.burst(burst, self.now_ns);
        // Over a capture packets do not mind to wait, and all comes out the same each time.
        if self.reloader.is_some() {
            self.balancer.step(self.now_ns);
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.now_ns = burst.now_ns();
        self.hear();
        while let Some(news) = self.checker.as_ref().and_then(Checker::news) {
            self.balancer.health(&news, self.now_ns);
        }
        self.balancer.tick(burst, self.now_ns);
        self.follow_targets();
    }

    fn message(&mut self, message: &Message) {
        if message.topic == reload::TOPIC {
            if let Some(reloader) = &self.reloader {
                reloader.request();
            }
        } else if !self.balancer.command(message, self.now_ns) {
            log::warn!("there is no command {:?}", message.topic);
        }
    }

    fn hand_over(&mut self) -> Option<State> {
        Some(State::of(&self.balancer))
    }

    fn take_over(&mut self, state: State) -> Result<(), String> {
        // No burst has come yet to tell the time.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        state.restore(&mut self.balancer, self.now_ns)
    }

    fn report(&self) -> Report {
        let status = self.reloader.as_ref().map(Reloader::status);
        report::of(&self.balancer, status.as_ref())
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    onvm_lib::run::<LoadBalancer>()
}

/// Says what is wrong with a file, as the program that it is for would.
fn check(options: &Options, json: bool) -> ExitCode {
    let path = &options.services;
    let (config, mut said) = config::examine(path);
    let mut note = |kind: &str, reason: String| {
        said.push_str(&format!("{}: {kind}{reason}\n", path.display()));
    };
    let config = config.filter(|config| {
        let fits = if options.inner { config::only_translates(config) } else { Ok(()) };
        fits.map_err(|reason| note("", reason)).is_ok()
    });
    // What this machine does not permit, another one may.
    if let Some(config) = config.as_ref().filter(|_| !options.no_health_checks)
        && let Err(reason) = health::permitted(config)
    {
        note("warning: ", reason);
    }
    let services = config.as_ref().map_or(0, |config| config.services.len());
    let backends: usize =
        config.iter().flat_map(|config| &config.services).map(|service| service.backends.len()).sum();
    use std::io::Write as _;
    let answer = if json {
        let (warnings, errors): (Vec<&str>, Vec<&str>) =
            said.lines().partition(|line| line.contains(": warning: "));
        let ok = config.is_some();
        serde_json::json!({
            "file": path, "ok": ok, "services": services, "backends": backends, "errors": errors,
            "warnings": warnings,
        })
        .to_string()
    } else {
        eprint!("{said}");
        format!("{}: {services} services, {backends} backends", path.display())
    };
    if json || config.is_some() {
        // Where standard output is gone there is nobody to tell; the exit code says it, too.
        let _ = writeln!(std::io::stdout(), "{answer}");
    }
    if config.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
