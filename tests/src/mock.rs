//! A manager of which the test says every word: one NF, one pool, a ring each way, and no worker.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use onvm_lib::node::NodePage;
use onvm_lib::pool::{Books, Geometry, Holder, Pool};
use onvm_lib::protocol::{Answer, Hello, Line, Listener, PROTOCOL_VERSION, RingGrant, Say, Welcome};
use onvm_lib::ring::bell::Barriers;
use onvm_lib::ring::{Consumer, Descriptor, Destination, Op, Producer, Ring};
use onvm_lib::shm::Pages;
use onvm_lib::wire::flow_hash;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::{LIMIT, Lab};

/// Entries of the rings.
const CAPACITY: u32 = 1024;

/// A manager that does what the test says.
#[derive(Debug)]
pub struct Mock {
    listener: Listener,
    books: Books,
    barriers: Barriers,
}

/// An NF that the mock took in.
#[derive(Debug)]
pub struct MockNf {
    /// How it introduced itself.
    pub hello: Hello,
    /// Its page.
    pub page: NodePage,
    line: Line,
    to: Producer,
    from: Consumer,
    doorbell: OwnedFd,
    reports: VecDeque<serde_json::Value>,
}

impl Mock {
    /// Listens at the lab's socket.
    ///
    /// # Panics
    /// When something else does.
    #[must_use]
    pub fn new(lab: &Lab) -> Self {
        let geometry = Geometry::new(4096, 2048).expect("a sound geometry");
        let pool = Pool::create(geometry, Pages::Plain).expect("memory");
        let listener = Listener::bind(lab.socket()).expect("a socket of our own");
        Self { listener, books: Books::new(pool, 7), barriers: Barriers::register() }
    }

    /// Takes in the next NF under this id.
    ///
    /// # Panics
    /// When it does not say hello.
    #[must_use]
    pub fn take_in(&mut self, instance: u32) -> MockNf {
        let mut line = self.listener.accept().expect("a connection");
        set_socket_timeout(&line, Timeout::Recv, Some(LIMIT)).expect("a socket");
        let (Say::Hello(hello), _) = line.receive(true).expect("a hello") else { panic!("no hello") };
        let [inbound, outbound] = [0, 1].map(|_| Ring::create("mock", CAPACITY).expect("memory"));
        let empties = hello.emits.then(|| Ring::create("mock", CAPACITY).expect("memory"));
        let page = NodePage::create().expect("memory");
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("a descriptor");
        let grant = |edge| RingGrant { edge, capacity: CAPACITY };
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            instance,
            pool: self.books.pool().geometry(),
            inbound: grant(1),
            outbound: grant(2),
            empties: hello.emits.then(|| grant(3)),
            core: None,
            shared_core: true,
        };
        let read_only = self.books.pool().region().read_only_fd().expect("a descriptor");
        let pool = if hello.reads_only { read_only.as_fd() } else { self.books.pool().region().as_fd() };
        let ring =
            |ring: &Ring| ring.region().expect("shared").as_fd().try_clone_to_owned().expect("a descriptor");
        let rings: Vec<OwnedFd> = [&inbound, &outbound].into_iter().chain(&empties).map(ring).collect();
        let mut fds = vec![pool, page.region().as_fd(), rings[0].as_fd(), rings[1].as_fd(), doorbell.as_fd()];
        fds.extend(rings.get(2).map(AsFd::as_fd));
        line.send(&Answer::Welcome(welcome), &fds, true).expect("it listens");
        let (to, from) = (inbound.producer(), outbound.consumer());
        MockNf { hello, page, line, to, from, doorbell, reports: VecDeque::new() }
    }

    /// Refuses the next NF.
    ///
    /// # Panics
    /// When it does not say hello.
    pub fn refuse(&mut self, reason: &str) {
        let mut line = self.listener.accept().expect("a connection");
        let _: (Say, _) = line.receive(true).expect("a hello");
        line.send(&Answer::Refused { reason: reason.into() }, &[], true).expect("it listens");
    }

    /// Gives the NF `n` packets of 60 bytes, each of a flow of its own.
    ///
    /// # Panics
    /// When there is no room.
    pub fn give(&mut self, nf: &mut MockNf, n: u32) {
        (0..n).for_each(|flow| self.push(nf, &[2; 60], flow));
        self.wake(nf);
    }

    /// Gives the NF these frames.
    ///
    /// # Panics
    /// When there is no room.
    pub fn give_frames<'f>(&mut self, nf: &mut MockNf, frames: impl IntoIterator<Item = &'f [u8]>) {
        frames.into_iter().for_each(|frame| self.push(nf, frame, flow_hash(frame)));
        self.wake(nf);
    }

    fn push(&mut self, nf: &mut MockNf, frame: &[u8], hash: u32) {
        let length = u32::try_from(frame.len()).expect("a frame");
        let mut packet = self.books.allocate(length).expect("a buffer");
        packet.bytes_mut(self.books.pool()).copy_from_slice(frame);
        let next = Destination::new(Op::Next, 0);
        packet.describe(packet.descriptor().with_hash(hash).with_port(0).with_destination(next));
        let descriptor = self.books.hand_out(packet, Holder::SHARED);
        nf.to.push(1, descriptor).expect("room in the ring");
    }

    fn wake(&mut self, nf: &mut MockNf) {
        nf.to.publish();
        if nf.to.rings(self.barriers) {
            nf.to.wake_sleeper();
        }
    }

    /// Takes what the NF passed on, until `n` packets have come; how many came within `limit`.
    pub fn take(&mut self, nf: &mut MockNf, n: usize, limit: Duration) -> usize {
        let until = Instant::now() + limit;
        let mut came = 0;
        let mut burst = [Descriptor::default(); 64];
        while came < n && Instant::now() < until {
            let got = nf.from.take(1, &mut burst).unwrap_or(0);
            for descriptor in &burst[..got] {
                if let Ok(packet) = self.books.receive(*descriptor, Holder::SHARED) {
                    self.books.free(packet);
                    came += 1;
                }
            }
            nf.from.release();
            if got == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        came
    }
}

impl MockNf {
    /// Says something to the NF.
    ///
    /// # Panics
    /// When it has hung up.
    pub fn say(&self, answer: &Answer) {
        self.say_with(answer, &[]);
    }

    /// Says something to the NF, and sends files along.
    ///
    /// # Panics
    /// When it has hung up.
    pub fn say_with(&self, answer: &Answer, files: &[BorrowedFd<'_>]) {
        self.line.send(answer, files, true).expect("it listens");
    }

    /// What the NF says next, its reports apart.
    ///
    /// # Panics
    /// When it says nothing within [`LIMIT`].
    pub fn hear(&mut self) -> (Say, Vec<OwnedFd>) {
        loop {
            match self.line.receive(true).expect("it speaks") {
                (Say::Report { report }, _) => self.reports.push_back(report),
                said => return said,
            }
        }
    }

    /// Tells it to stop, and hears it out; its last report.
    ///
    /// # Panics
    /// When it does not leave in order.
    pub fn stop(mut self) -> serde_json::Value {
        self.say(&Answer::Stop);
        while self.hear().0 != Say::Leaving {}
        // The worker is awake all the time here; the bell only has to exist.
        drop(self.doorbell);
        self.reports.pop_back().expect("a report at the end")
    }
}
