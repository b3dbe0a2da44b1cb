//! A port's hold on an interface: the program, the sockets of its queues, and how that came about.

use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onvm_lib::pool::Pool;
use rustix::event::epoll;
use rustix::net::xdp::SocketAddrXdpFlags as Bind;

use super::bpf::{self, Mode, Program, Sockets};
use super::btf;
use super::device::{self, TagsStay};
use super::netlink::{self, Interface};
use super::options::{Options, Transfer};
use super::program;
use super::queue::{self, IN_FRONT, Queue, Unbound};

/// Bytes of a frame beside the packet that the MTU speaks of: Ethernet, and two tags.
const AROUND: u32 = 14 + 8;
/// Buffers that the kernel has for receiving, of all queues together: a share of the pool, as a divisor.
const SHARE: u32 = 8;

/// What keeps a port from its interface, in words for the user.
pub(super) struct Refusal(pub(super) String);

impl Refusal {
    fn at(step: &str, error: &Error) -> Self {
        let why = match queue::why(error) {
            Some(why) => why.to_string(),
            None => error.to_string(),
        };
        Self(format!("{step}: {why}"))
    }
}

/// The program and the sockets, as long as there is an interface.
pub(super) struct Link {
    pub(super) index: u32,
    /// They go first, then what else there is: a frame that comes meanwhile goes to the kernel's stack.
    pub(super) queues: Vec<Queue>,
    /// Readable when a socket is, where there are several.
    any: Option<OwnedFd>,
    _program: bpf::Link,
    _sockets: Sockets,
    _promiscuous: Option<OwnedFd>,
    _tags: TagsStay,
    /// `native, copy, queue 0`.
    pub(super) manner: String,
    /// Longest IP packet that the interface sends.
    pub(super) mtu: u32,
}

/// How a socket may be bound, the best first.
fn ways(options: &Options, mode: Mode, pool: &Pool, parts: bool) -> Vec<Bind> {
    if mode == Mode::Generic && !parts {
        // Local senders hand super-frames to programs that are not in the driver: they come in parts where that can be.
        let plain = Bind::XDP_USE_NEED_WAKEUP | Bind::XDP_COPY;
        return vec![plain | Bind::XDP_USE_SG, plain];
    }
    let plain = Bind::XDP_USE_NEED_WAKEUP | if parts { Bind::XDP_USE_SG } else { Bind::empty() };
    let zero = mode == Mode::Native && queue::allows_zero_copy(pool);
    match options.copy {
        Transfer::Zero => vec![plain | Bind::XDP_ZEROCOPY],
        Transfer::Auto if zero => vec![plain | Bind::XDP_ZEROCOPY, plain | Bind::XDP_COPY],
        Transfer::Auto | Transfer::Copied => vec![plain | Bind::XDP_COPY],
    }
}

impl Link {
    /// Opens everything, or nothing.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn open(index: u32, options: &Options, pool: &Pool) -> Result<Self, Refusal> {
        let name = &options.interface;
        let known = netlink::interface(index).map_err(|e| Refusal::at("cannot be looked at", &e))?;
        let chunk = queue::chunk(pool).ok_or_else(|| {
            let room = pool.geometry().packet_room();
            Refusal(format!("buffers of {room} bytes are too small for AF_XDP, which wants 1792"))
        })?;
        if options.copy == Transfer::Zero && !queue::allows_zero_copy(pool) {
            let what = "copy=zero needs a pool on huge pages: set vm.nr_hugepages, leave --no-huge out";
            return Err(Refusal(what.into()));
        }
        let longest = known.mtu + AROUND;
        if longest > pool.geometry().packet_room() {
            let (mtu, room) = (known.mtu, pool.geometry().packet_room());
            return Err(Refusal(format!(
                "its MTU of {mtu} is more than buffers of {room} bytes have room for: start with --mtu {mtu}"
            )));
        }
        let parts = longest > chunk - IN_FRONT;
        let numbers = queues(options, &known)?;
        let sockets = Sockets::new(numbers.end() + 1).map_err(|e| Refusal::at("no map of sockets", &e))?;
        make_way(index, options, &known)?;
        let tags = TagsStay::on(name);
        let (attached, mode) = attach(&sockets, index, options, parts.then_some(known.mtu))?;
        let wanted = pool.geometry().buffers() / SHARE / (numbers.end() - numbers.start() + 1);
        let mut bound: Vec<Queue> = Vec::new();
        for number in numbers.clone() {
            let queue = bind(
                &(index, number, mode),
                options,
                pool,
                (parts, known.mtu),
                bound.first(),
                (chunk, wanted),
            )?;
            sockets.set(number, queue.as_fd()).map_err(|e| Refusal::at("no socket in the map", &e))?;
            queue::raise_budget(&queue);
            bound.push(queue);
        }
        let promiscuous = options.promiscuous.then(|| device::promiscuous(index)).transpose();
        let zero_copy = bound.iter().any(|queue| queue.zero_copy);
        let any = any_of(&bound).map_err(|e| Refusal::at("cannot be waited for", &e))?;
        let mut manner = format!("{}, {}", mode.name(), if zero_copy { "zero-copy" } else { "copy" });
        if numbers.start() == numbers.end() {
            manner += &format!(", queue {}", numbers.start());
        } else {
            manner += &format!(", queues {}-{}", numbers.start(), numbers.end());
        }
        if parts {
            manner += ", multi-buffer";
        }
        Ok(Self {
            index,
            queues: bound,
            any,
            _program: attached,
            _sockets: sockets,
            _promiscuous: promiscuous.map_err(|e| Refusal::at("cannot be made promiscuous", &e))?,
            _tags: tags,
            manner,
            mtu: known.mtu,
        })
    }

    /// What becomes readable with the first frame.
    pub(super) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        match &self.any {
            Some(any) => Some(any.as_fd()),
            None => self.queues.first().map(AsFd::as_fd),
        }
    }
}

/// The queues that are wanted; all that there are unless told otherwise.
fn queues(options: &Options, known: &Interface) -> Result<std::ops::RangeInclusive<u32>, Refusal> {
    let there = device::queues(&options.interface).unwrap_or(known.queues.max(1));
    let wanted = options.queues.clone().unwrap_or(0..=there - 1);
    if *wanted.end() >= there {
        let (queue, last) = (wanted.end(), there - 1);
        return Err(Refusal(format!("there is no queue {queue}, the last is {last}")));
    }
    Ok(wanted)
}

fn no_parts(mtu: u32) -> Refusal {
    Refusal(format!(
        "its MTU of {mtu} needs frames in several buffers, which kernel and driver do not do together (Linux 6.6): \
         lower the MTU to 1500, or use afpacket:"
    ))
}

/// Looks for another program, and takes it away if we may.
fn make_way(index: u32, options: &Options, known: &Interface) -> Result<(), Refusal> {
    let Some((id, mode)) = known.program() else { return Ok(()) };
    let name = bpf::name_of(id).map_or(String::new(), |name| format!(" {name:?}"));
    let what = format!("another XDP program is attached to it, id {id}{name}, {}", mode.name());
    if !options.force {
        return Err(Refusal(format!("{what}; the option force replaces it")));
    }
    log::warn!("{}: {what}; it is replaced", options.interface);
    let linked = bpf::detach_link_of(index, id).map_err(|e| Refusal::at("the other program stays", &e))?;
    if !linked {
        netlink::detach(index, mode).map_err(|e| Refusal::at("the other program stays", &e))?;
    }
    Ok(())
}

/// Loads the program, with the part that puts tags back if this kernel has what that needs.
fn load(sockets: &Sockets, index: u32, mode: Mode) -> Result<Program, Refusal> {
    if mode == Mode::Native
        && let Some(function) = btf::function(program::TAG_FUNCTION)
    {
        match Program::load(&program::redirect_to(sockets.as_fd(), Some(function)), Some(index)) {
            Ok(program) => return Ok(program),
            Err(error) => log::debug!("VLAN tags that a device takes out stay out: {error}"),
        }
    }
    Program::load(&program::redirect_to(sockets.as_fd(), None), None)
        .map_err(|e| Refusal::at("the program cannot be loaded", &e))
}

/// Attaches the program in the mode that is wanted, or the best that can be had.
fn attach(
    sockets: &Sockets,
    index: u32,
    options: &Options,
    parts: Option<u32>,
) -> Result<(bpf::Link, Mode), Refusal> {
    let modes: &[Mode] = match options.mode {
        Some(Mode::Native) => &[Mode::Native],
        Some(Mode::Generic) => &[Mode::Generic],
        None => &[Mode::Native, Mode::Generic],
    };
    let mut failed = None;
    for mode in modes {
        let program = load(sockets, index, *mode)?;
        if let Some(mtu) = parts.filter(|_| !program.takes_parts) {
            return Err(no_parts(mtu));
        }
        match program.attach(index, *mode) {
            Ok(link) => {
                if let Some(Refusal(why)) = failed {
                    log::info!("{}: {why}; generic it is", options.interface);
                }
                return Ok((link, *mode));
            }
            Err(error) => {
                let step = format!("the program cannot be attached, {}", mode.name());
                failed = Some(Refusal::at(&step, &error));
            }
        }
    }
    Err(failed.unwrap_or_else(|| Refusal("no mode to attach the program in".into())))
}

/// Binds a socket in the best way that can be had.
fn bind(
    (index, number, mode): &(u32, u32, Mode),
    options: &Options,
    pool: &Pool,
    (parts, mtu): (bool, u32),
    first: Option<&Queue>,
    sizes: (u32, u32),
) -> Result<Queue, Refusal> {
    let mut last = None;
    for flags in ways(options, *mode, pool, parts) {
        let socket = Unbound::new(pool, sizes.0, *number, first.is_some())
            .map_err(|e| Refusal::at("no AF_XDP socket", &e))?;
        match socket.bind(*index, flags, first, sizes) {
            Ok(queue) => return Ok(queue),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| Error::from_raw_os_error(libc::EINVAL));
    Err(match error.raw_os_error() {
        Some(libc::EBUSY) => Refusal(format!("another AF_XDP socket has queue {number}")),
        Some(libc::EOPNOTSUPP) if options.copy == Transfer::Zero => {
            Refusal("copy=zero: its driver has no zero-copy for AF_XDP".into())
        }
        Some(libc::EINVAL | libc::EOPNOTSUPP) if parts => no_parts(mtu),
        _ => Refusal::at(&format!("the socket of queue {number} cannot be bound"), &error),
    })
}

fn any_of(queues: &[Queue]) -> Result<Option<OwnedFd>, Error> {
    if queues.len() < 2 {
        return Ok(None);
    }
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for queue in queues {
        epoll::add(&any, queue, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(Some(any))
}
