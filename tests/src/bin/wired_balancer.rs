//! The load balancer's packet path between two real network devices, for tests with real servers and clients.
//!
//! `wired_balancer FILE CLIENTS BACKENDS` does with packet sockets what a manager with two ports would do: frames of
//! the device CLIENTS come in by port 0, those of BACKENDS by port 1, and each verdict is carried out. Lines of standard
//! input are messages (`{"topic": "drain", "body": {…}}`), answered by `ok`; `reload` reads the file anew, and
//! `report` is answered by the report as a line of JSON. It ends with its input.
//!
//! `unsafe` is here for the sockets of AF_PACKET, for which there is no safe interface.

use std::io::{BufRead, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nf_loadbalancer::frame::PlainBurst;
use nf_loadbalancer::health::Checker;
use nf_loadbalancer::{Balancer, config};
use onvm_lib::prelude::{Message, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Frames taken from a device at a time.
const BURST: usize = 64;
/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h: frames that were sent here are not heard again.
const IGNORE_OUTGOING: libc::c_int = 23;
const TICK: Duration = Duration::from_millis(100);

/// A socket that hears and sends all frames of a device.
fn packet_socket(device: &str) -> std::io::Result<OwnedFd> {
    let name = std::ffi::CString::new(device)?;
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or(3).to_be();
    // SAFETY: plain system calls; the name is a C string, and the structures are of the sizes that are given.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr());
        if index == 0 {
            return Err(std::io::Error::last_os_error());
        }
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let fd = libc::socket(libc::AF_PACKET, kind, libc::c_int::from(all));
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(17);
        address.sll_protocol = all;
        address.sll_ifindex = i32::try_from(index).unwrap_or(0);
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        if libc::bind(fd, (&raw const address).cast(), length) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        for (level, option, value) in
            [(libc::SOL_PACKET, IGNORE_OUTGOING, 1), (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)]
        {
            let value: libc::c_int = value;
            let size = u32::try_from(size_of::<libc::c_int>()).unwrap_or(4);
            if libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(socket)
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

struct Wired {
    balancer: Balancer,
    checker: Checker,
    file: String,
    devices: [OwnedFd; 2],
}

impl Wired {
    /// Takes what has come by both devices; whether there was anything.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        let mut burst = PlainBurst::default();
        for (port, device) in (0u8..).zip(&self.devices) {
            for _ in 0..BURST {
                let Ok((_, length)) = recv(device, &mut *buffer, RecvFlags::empty()) else { break };
                burst.frames.extend(PlainBurst::one(&buffer[..length], Some(port)).frames);
            }
        }
        let any = !burst.frames.is_empty();
        self.balancer.refresh(now_ns());
        self.balancer.burst(&mut burst, now_ns());
        self.send(&mut burst);
        any
    }

    fn send(&self, burst: &mut PlainBurst) {
        for (verdict, frame) in burst.out() {
            if let Verdict::Out(port) = verdict
                && let Some(device) = self.devices.get(usize::from(port))
                && let Err(error) = send(device, &frame, SendFlags::empty())
            {
                eprintln!("a frame of {} bytes cannot be sent by port {port}: {error}", frame.len());
            }
        }
    }

    fn tick(&mut self) {
        while let Some(news) = self.checker.news() {
            self.balancer.health(&news, now_ns());
        }
        let mut burst = PlainBurst::default();
        self.balancer.tick(&mut burst, now_ns());
        if self.balancer.take_targets_change() {
            self.checker.check(self.balancer.targets());
        }
        self.send(&mut burst);
    }

    /// Does what a line says; the answer.
    fn obey(&mut self, line: &str) -> Result<String, String> {
        match line {
            "report" => return Ok(self.balancer.report().json.to_string()),
            "reload" => self.balancer.replace(config::load(Path::new(&self.file))?, now_ns()),
            _ => {
                let said: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
                let topic = said["topic"].as_str().unwrap_or_default().to_string();
                let message = Message { from: None, topic, body: said["body"].clone() };
                if !self.balancer.command(&message, now_ns()) {
                    return Err(format!("no command: {line}"));
                }
            }
        }
        Ok("ok".into())
    }

    fn run(&mut self, lines: &Receiver<String>) -> Result<(), String> {
        let mut buffer = vec![0; 65_536];
        let mut next_tick = Instant::now();
        loop {
            let busy = self.turn(&mut buffer);
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick();
            }
            match lines.try_recv() {
                Ok(line) => {
                    println!("{}", self.obey(&line).unwrap_or_else(|error| format!("error: {error}")));
                    std::io::stdout().flush().map_err(|e| e.to_string())?;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            if !busy {
                let [a, b] = &self.devices;
                let mut fds = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
                let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                // An interrupted wait is a short one.
                let _ = poll(&mut fds, Some(&wait));
            }
        }
    }
}

fn work(arguments: &[String]) -> Result<(), String> {
    let [file, clients, backends] = arguments else { return Err("FILE CLIENTS BACKENDS are needed".into()) };
    let config = config::load(Path::new(file))?;
    let device = |name: &String| packet_socket(name).map_err(|e| format!("{name}: {e}"));
    let devices = [device(clients)?, device(backends)?];
    let balancer = Balancer::live(config, 1).map_err(|e| e.to_string())?;
    let checker = Checker::start().map_err(|e| e.to_string())?;
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    Wired { balancer, checker, file: file.clone(), devices }.run(&lines)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match work(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wired_balancer: {error}");
            ExitCode::FAILURE
        }
    }
}
