//! An NF that attaches in order and then does everything it should not.
//!
//! `hostile_nf SOCKET SERVICE ATTACK MILLISECONDS SEED [reads-only]`: attacks over and over until the time is up,
//! then hangs around until it is killed, or is killed for what it did.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onvm_lib::protocol::{Answer, Hello, Line, PROTOCOL_VERSION, Request, Say, Target, Welcome};
use onvm_lib::ring::{Consumer, Descriptor, Destination, Op, Producer, Ring};
use onvm_lib::shm::{Access, Region};
use onvm_tests::Dice;
use rustix::fs::OFlags;

/// Everything that the manager gave us.
struct Loot {
    line: Line,
    welcome: Welcome,
    pool: OwnedFd,
    page: Region,
    inbound: Ring,
    outbound: Ring,
    empties: Option<Ring>,
    doorbell: OwnedFd,
}

fn hello(service: u16, reads_only: bool) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        service,
        instance: None,
        name: "hostile".into(),
        destination: None,
        reads_only,
        emits: true,
        core: None,
        shared_core: true,
        reattached: None,
        received: 0,
        token: None,
        parent: None,
        hands_over: false,
    }
}

fn attach(socket: &Path, hello: Hello) -> Loot {
    let mut line = Line::connect(socket).expect("a manager");
    line.send(&Say::Hello(hello), &[], true).expect("it listens");
    let Ok((Answer::Welcome(welcome), fds)) = line.receive::<Answer>(true) else { panic!("not welcome") };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().expect("a descriptor");
    let (pool, page, to, from, doorbell) = (next(), next(), next(), next(), next());
    let ring = |fd, capacity| Ring::open("loot", fd, capacity).expect("a ring");
    let page_bytes = usize::try_from(rustix::fs::fstat(&page).expect("a file").st_size).expect("a size");
    Loot {
        inbound: ring(to, welcome.inbound.capacity),
        outbound: ring(from, welcome.outbound.capacity),
        empties: welcome.empties.map(|grant| ring(next(), grant.capacity)),
        page: Region::from_fd("loot", page, page_bytes, Access::ReadWrite).expect("a page"),
        pool,
        doorbell,
        line,
        welcome,
    }
}

/// Fills a region, from a byte on, with chance.
fn scribble(region: &Region, from: usize, bytes: usize, dice: &mut Dice) {
    let end = (from + bytes).min(region.len());
    for at in (from..end.saturating_sub(7)).step_by(8) {
        // SAFETY: the mapping is live and writable, and the eight bytes end inside it.
        unsafe { region.base().as_ptr().add(at).cast::<u64>().write_volatile(dice.any()) };
    }
}

fn write_word(ring: &Ring, at: usize, value: u32) {
    let region = ring.region().expect("a ring in shared memory");
    // SAFETY: the header is 768 bytes long, `at` is inside and a multiple of four; the mapping is writable.
    unsafe { region.base().as_ptr().add(at).cast::<u32>().write_volatile(value) };
}

/// Head, mark and turn; tail, taken and turn; sleeping: see `ring/layout.rs`.
const WORDS: [usize; 7] = [128, 256, 260, 384, 512, 516, 640];

fn rings(loot: &mut Loot, dice: &mut Dice) {
    for ring in [Some(&loot.inbound), Some(&loot.outbound), loot.empties.as_ref()].into_iter().flatten() {
        let value = u32::try_from(dice.any() >> 32).unwrap_or(0);
        write_word(ring, WORDS[dice.index(WORDS.len())], if dice.below(4) == 0 { u32::MAX } else { value });
        let region = ring.region().expect("a ring in shared memory");
        scribble(region, 768, 4096, dice);
        if dice.below(50) == 0 {
            scribble(region, 0, 768, dice);
        }
    }
}

/// Head and mark that can be, slots that cannot.
fn slots(loot: &mut Loot, producer: &mut Producer, dice: &mut Dice) {
    for _ in 0..64 {
        let _ = producer.push(1, Descriptor::from_words([dice.any(), dice.any()]));
    }
    producer.publish();
    ring_doorbell(loot);
}

/// Descriptors of buffers that it was never given: every index, generation after generation, every operation.
fn guess(loot: &mut Loot, producer: &mut Producer, dice: &mut Dice) {
    let buffers = u64::from(loot.welcome.pool.buffers());
    for _ in 0..1024 {
        let index = u32::try_from(dice.below(buffers)).unwrap_or(0);
        let generation = u16::try_from(dice.below(1 << 16)).unwrap_or(0);
        let op = [Op::Next, Op::Port, Op::Drop, Op::Service, Op::Empty, Op::Invalid][dice.index(6)];
        let argument = u16::try_from(dice.below(4)).unwrap_or(0);
        let guess =
            Descriptor::new(index, generation, 192, 60).with_destination(Destination::new(op, argument));
        let _ = producer.push(1, guess);
    }
    producer.publish();
    ring_doorbell(loot);
}

/// Orders for other edges, copies to everywhere.
fn orders(loot: &mut Loot, producer: &mut Producer, dice: &mut Dice) {
    for number in 0..200 {
        let op = if dice.below(2) == 0 { Op::Marker } else { Op::Mirror };
        let value = if dice.below(2) == 0 { number } else { u32::try_from(dice.any() >> 32).unwrap_or(0) };
        let _ = producer.push(1, Descriptor::without_buffer(Destination::new(op, 0), value));
    }
    producer.publish();
    ring_doorbell(loot);
}

/// What it was given, given back again and again, with lengths and offsets of its own.
fn twice(loot: &mut Loot, ends: &mut Ends, dice: &mut Dice) {
    let mut burst = [Descriptor::default(); 64];
    for consumer in [Some(&mut ends.inbound), ends.empties.as_mut()].into_iter().flatten() {
        let n = consumer.take(1, &mut burst).unwrap_or(0);
        for d in &burst[..n] {
            let length = u32::try_from(dice.below(20_000)).unwrap_or(0);
            let offset = u32::try_from(dice.below(5000)).unwrap_or(0);
            let port = Destination::new(Op::Port, u16::try_from(dice.below(4)).unwrap_or(0));
            for again in [*d, *d, d.with_destination(port), d.with_place(offset, length)] {
                let _ = ends.outbound.push(1, again);
            }
        }
        if dice.below(2) == 0 {
            consumer.release();
        }
    }
    ends.outbound.publish();
    ring_doorbell(loot);
}

/// Where the page has the word by which the manager hears of a death: see `node/mod.rs`.
const LIFE: usize = 17_024;

fn page(loot: &mut Loot, dice: &mut Dice) {
    if dice.below(2) == 0 {
        return scribble(&loot.page, 0, LIFE, dice);
    }
    for at in (0..LIFE - 7).step_by(8) {
        // SAFETY: as in scribble.
        unsafe { loot.page.base().as_ptr().add(at).cast::<u64>().write_volatile(u64::MAX) };
    }
}

/// Says again and again that the thread is another one; now and then that it has died.
fn life(loot: &mut Loot, dice: &mut Dice) {
    let died = u64::from(dice.below(1_000_000) == 0) << 30;
    // SAFETY: the mapping is live and writable, and the word is inside it.
    let word = unsafe { &*loot.page.base().as_ptr().add(LIFE).cast::<std::sync::atomic::AtomicU32>() };
    word.store(u32::try_from(dice.any() & 0x3fff_ffff | died).unwrap_or(0), Ordering::Release);
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
}

fn pool(loot: &mut Loot, dice: &mut Dice) {
    let fd = loot.pool.try_clone().expect("descriptors");
    if let Ok(region) = Region::from_fd("loot", fd, loot.welcome.pool.bytes(), Access::ReadWrite) {
        scribble(&region, dice.index(1 << 20) & !7, 1 << 18, dice);
    }
    // None of these may be possible.
    for fd in [loot.pool.as_fd(), loot.page.as_fd()] {
        assert!(rustix::fs::ftruncate(fd, 0).is_err(), "a shared region can be cut");
    }
}

fn ring_doorbell(loot: &Loot) {
    let _ = rustix::io::write(&loot.doorbell, &1u64.to_ne_bytes());
}

fn doorbell(loot: &mut Loot) {
    let flags = rustix::fs::fcntl_getfl(&loot.doorbell).expect("flags");
    let _ = rustix::io::write(&loot.doorbell, &(u64::MAX - 1).to_ne_bytes());
    let _ = rustix::fs::fcntl_setfl(&loot.doorbell, flags - OFlags::NONBLOCK);
}

/// A line that talks without listening: floods of questions, messages to others, reports.
fn flood(loot: &mut Loot, socket: &Path, dice: &mut Dice) {
    let big = "x".repeat(100_000);
    for service in 0..6 {
        let say =
            Say::Tell { target: Target::Service(service), topic: big[..20].into(), body: big[..1000].into() };
        let _ = loot.line.send(&say, &[], false);
    }
    let _ = loot.line.send(&Say::Report { report: big.into() }, &[], false);
    let _ = loot.line.send(&Say::Routed { version: dice.any() }, &[], false);
    let Ok(client) = Line::connect(socket) else { return };
    for _ in 0..200 {
        let request =
            [Request::Stats, Request::Audit, Request::NfList, Request::ChainShow][dice.index(4)].clone();
        let _ = client.send(&Say::Ask { version: PROTOCOL_VERSION, request }, &[], false);
    }
}

/// Lines that say nonsense: cut JSON, random bytes, too much, lies, the right words at the wrong time.
fn babble(socket: &Path, dice: &mut Dice) {
    let Ok(mut line) = Line::connect(socket) else { return };
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    let long = vec![b'x'; 400_000];
    let random: Vec<u8> = (0..dice.below(3000)).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect();
    let raw = |bytes: &[u8]| {
        let _ = rustix::net::send(&line, bytes, rustix::net::SendFlags::NOSIGNAL);
    };
    match dice.below(12) {
        0 => raw(&random),
        1 => raw(b"{\"say\":\"hello\",\"version\":1,\"serv"),
        2 => raw(&long[..200_000]),
        3 => raw(b""),
        4 => raw(b"{\"say\":\"hello\",\"version\":1,\"service\":70000,\"name\":\"x\",\"reads_only\":false,\"emits\":false,\"shared_core\":false}"),
        5 => drop(line.send(&Say::Leaving, &[], true)),
        6 => drop(line.send(&Say::Routed { version: 7 }, &[], true)),
        7 => drop(line.send(&Say::Hello(Hello { version: 9, ..hello(1, false) }), &vec![file.as_fd(); 200], true)),
        lie => {
            let mut hello = hello(66, false);
            match lie {
                8 => hello.service = 0,
                9 => hello.name = "\u{1b}[2J".repeat(10_000),
                10 => hello.instance = Some(u32::MAX),
                _ => hello.core = Some(u32::MAX),
            }
            line.send(&Say::Hello(hello), &[], true).expect("it listens");
            let answer = line.receive::<Answer>(true);
            assert!(matches!(answer, Ok((Answer::Refused { .. }, _))), "a lie was believed: {answer:?}");
        }
    }
}

struct Ends {
    outbound: Producer,
    inbound: Consumer,
    empties: Option<Consumer>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("SOCKET SERVICE ATTACK MILLISECONDS SEED [reads-only]");
    let (socket, service, attack, time, seed) = (next(), next(), next(), next(), next());
    let reads_only = arguments.next().is_some();
    let socket = Path::new(&socket);
    let mut dice = Dice::from_seed(seed.parse().expect("a seed"));
    let mut loot = attach(socket, hello(service.parse().expect("a service"), reads_only));
    if reads_only {
        let fd = loot.pool.try_clone().expect("descriptors");
        let refused = Region::from_fd("loot", fd, loot.welcome.pool.bytes(), Access::ReadWrite);
        assert!(refused.is_err(), "a read-only pool can be mapped for writing");
        let again = format!("/proc/self/fd/{}", loot.pool.as_raw_fd());
        println!(
            "reopened: {:?}",
            rustix::fs::open(&again, OFlags::RDWR, rustix::fs::Mode::empty()).map(drop)
        );
    }
    let mut ends = Ends {
        outbound: loot.outbound.producer(),
        inbound: loot.inbound.consumer(),
        empties: loot.empties.as_ref().map(Ring::consumer),
    };
    // Until it says that it follows its first routes it has no packets.
    let Ok((Answer::Route(route), _)) = loot.line.receive::<Answer>(true) else { panic!("no routes") };
    loot.line.send(&Say::Routed { version: route.version }, &[], true).expect("a manager");
    println!("attached");
    // The ports open when it is there: who is killed before would be waited for.
    std::thread::sleep(Duration::from_millis(300));
    let end = Instant::now() + Duration::from_millis(time.parse().expect("a time"));
    while Instant::now() < end {
        match attack.as_str() {
            "rings" => rings(&mut loot, &mut dice),
            "slots" => slots(&mut loot, &mut ends.outbound, &mut dice),
            "guess" => guess(&mut loot, &mut ends.outbound, &mut dice),
            "orders" => orders(&mut loot, &mut ends.outbound, &mut dice),
            "twice" => twice(&mut loot, &mut ends, &mut dice),
            "page" => page(&mut loot, &mut dice),
            "life" => life(&mut loot, &mut dice),
            "pool" => pool(&mut loot, &mut dice),
            "doorbell" => doorbell(&mut loot),
            "flood" => flood(&mut loot, socket, &mut dice),
            "babble" => babble(socket, &mut dice),
            "hang-up" => loot.line.shut_down(),
            "nonsense" => drop(rustix::net::send(&loot.line, b"nonsense", rustix::net::SendFlags::NOSIGNAL)),
            "out-of-turn" => {
                let request = Request::Stats;
                let _ = loot.line.send(&Say::Ask { version: PROTOCOL_VERSION, request }, &[], false);
            }
            other => panic!("no attack {other:?}"),
        }
    }
    println!("done");
    std::thread::sleep(Duration::from_secs(60));
}
