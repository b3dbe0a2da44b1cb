//! What goes over a [`Wire`] in tests: files by HTTP, datagrams that know their own checksum, frames as they are.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::wire::{Background, SERVER, Wire};
use crate::{Lab, read_capture, read_so_far, wait_until};

/// A file of chance, and an HTTP server that has it.
#[derive(Debug)]
pub struct Served {
    sum: String,
    _server: Background,
}

/// Has the server serve a file of so many megabytes.
///
/// # Panics
/// When there is no room for it, or no server.
#[must_use]
pub fn serve(lab: &Lab, wire: &Wire, megabytes: usize) -> Served {
    let directory = lab.file("served");
    std::fs::create_dir_all(&directory).expect("room for a file");
    let mut file = std::fs::File::create(lab.path("served/file")).expect("room for a file");
    let mut random = std::fs::File::open("/dev/urandom").expect("chance");
    let mut block = vec![0; 1 << 20];
    for _ in 0..megabytes {
        random.read_exact(&mut block).expect("chance");
        file.write_all(&block).expect("room for a file");
    }
    let sum = sha256(Command::new("cat").arg(lab.file("served/file")));
    let server = wire.serve(&["python3", "-m", "http.server", "--bind", "::", "-d", &directory, "8000"]);
    wait_until("the server", || {
        let ask = &["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:8000/"];
        wire.at_server(ask).status().is_ok_and(|status| status.success())
    });
    Served { sum, _server: server }
}

impl Served {
    /// Downloads the file to the client; it must arrive as it is.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_arrives(&self, wire: &Wire, host: &str) {
        self.assert_comes(host, |arguments| wire.at_client(arguments));
    }

    /// The same to where the test is.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_arrives_here(&self, host: &str) {
        self.assert_comes(host, |arguments| {
            let mut command = Command::new(arguments[0]);
            command.args(&arguments[1..]);
            command
        });
    }

    /// The same as [`Served::assert_arrives`], at so many megabytes a second at most: what is to happen meanwhile has time to.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_arrives_slowly(&self, wire: &Wire, host: &str, megabytes: usize) {
        let rate = format!("{megabytes}M");
        self.assert_comes(host, |arguments| {
            let mut command = wire.at_client(arguments);
            command.args(["--limit-rate", &rate]);
            command
        });
    }

    fn assert_comes(&self, host: &str, command: impl Fn(&[&str]) -> Command) {
        let url = format!("http://{host}:8000/file");
        let came = sha256(&mut command(&["curl", "-sf", "--max-time", "600", &url]));
        assert_eq!(came, self.sum, "a file from {host}");
    }
}

/// The checksum of what a command writes.
fn sha256(command: &mut Command) -> String {
    let mut source = command.stdout(Stdio::piped()).spawn().expect("a command");
    let out = source.stdout.take().expect("a pipe");
    let sum = Command::new("sha256sum").stdin(out).output().expect("sha256sum");
    assert!(source.wait().is_ok_and(|status| status.success()), "{command:?}");
    String::from_utf8(sum.stdout).expect("a checksum")
}

/// Takes datagrams that begin with the checksum of the rest, answers when so many of them have come that more may, and says
/// how many different ones came.
const TAKE: &str = "import hashlib, socket, sys\n\
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setsockopt(1, 33, 1 << 25); s.bind(('::', 9000))\n\
    print('ready', flush=True); s.settimeout(100); came = set(); wanted = int(sys.argv[1])\n\
    while len(came) < wanted:\n\
    \x20   d, who = s.recvfrom(65536); before = len(came)\n\
    \x20   assert hashlib.sha256(d[32:]).digest() == d[:32], 'a datagram is changed'\n\
    \x20   came.add(d[32:36])\n\
    \x20   if len(came) > before and (len(came) % 64 == 0 or len(came) == wanted): s.sendto(b'go on', who)\n\
    print(len(came))\n";

/// Sends such datagrams, never more at once than there is room for in any queue on the way, however late that is emptied.
const GIVE: &str = "import hashlib, os, socket, sys\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(100); count, size = int(sys.argv[2]), int(sys.argv[3])\n\
    for n in range(count):\n\
    \x20   d = n.to_bytes(4, 'big') + os.urandom(size - 36)\n\
    \x20   s.sendto(hashlib.sha256(d).digest() + d, (sys.argv[1], 9000))\n\
    \x20   if n % 64 == 63 or n == count - 1: assert s.recv(9) == b'go on'\n";

/// Sends so many datagrams of so many bytes from the client to the server. All must arrive as they are.
///
/// # Panics
/// When one does not.
pub fn assert_datagrams_arrive(wire: &Wire, count: usize, bytes: usize) {
    let (count, bytes) = (count.to_string(), bytes.to_string());
    let mut take =
        wire.at_server(&["python3", "-c", TAKE, &count]).stdout(Stdio::piped()).spawn().expect("python");
    let mut out = take.stdout.take().expect("a pipe");
    let mut ready = [0; 6];
    out.read_exact(&mut ready).expect("a receiver that is ready");
    let _ = wire.client(&["python3", "-c", GIVE, SERVER, &count, &bytes]);
    let mut came = String::new();
    out.read_to_string(&mut came).expect("the end of the receiver");
    assert!(take.wait().is_ok_and(|status| status.success()) && came.trim() == count, "{came:?} of {count}");
}

/// Says back what it hears.
const ANSWER: &str = "import socket\n\
    s = socket.create_server(('', 2222)); print('ready', flush=True); c, _ = s.accept()\n\
    while True:\n    d = c.recv(4096)\n    if not d: break\n    c.sendall(d)\n";

/// Types a few letters now and then until its standard input ends, and wants to see them before it goes on; says how often.
const TYPE: &str = "import select, socket, sys\n\
    s = socket.create_connection((sys.argv[1], 2222), 100); s.setsockopt(6, 1, 1); s.settimeout(100); n = 0\n\
    while not select.select([sys.stdin], [], [], 0.02)[0]:\n\
    \x20   d = bytes([n % 256]) * (1 + n % 40); s.sendall(d); came = b''\n\
    \x20   while len(came) < len(d):\n\
    \x20       more = s.recv(4096); assert more, 'the connection has ended'; came += more\n\
    \x20   assert came == d, 'what came back is not what was sent'\n\
    \x20   n += 1\n\
    print(n)\n";

/// A connection that lasts, with little on it, as of somebody who types at a shell.
#[derive(Debug)]
pub struct Conversation {
    typist: std::process::Child,
    _server: Background,
}

/// Begins one between client and server.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn converse(wire: &Wire) -> Conversation {
    let mut server =
        wire.at_server(&["python3", "-c", ANSWER]).stdout(Stdio::piped()).spawn().expect("python");
    let mut ready = [0; 6];
    server.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("a server that is ready");
    let mut typist = wire.at_client(&["python3", "-c", TYPE, SERVER]);
    let typist = typist.stdin(Stdio::piped()).stdout(Stdio::piped());
    Conversation { typist: typist.spawn().expect("python"), _server: Background(server) }
}

impl Conversation {
    /// Ends it; it must have held, and have had an answer to every word.
    ///
    /// # Panics
    /// When it has not.
    pub fn end(mut self) {
        drop(self.typist.stdin.take());
        let mut said = String::new();
        self.typist.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        let end = self.typist.wait().expect("a child");
        assert!(end.success(), "a conversation breaks off");
        assert!(said.trim().parse::<u32>().is_ok_and(|words| words > 3), "{said:?} words");
    }
}

/// Records all that passes an interface at one end, `c0` or `s0`, whole.
#[derive(Debug)]
pub struct Recording {
    tcpdump: std::process::Child,
    path: std::path::PathBuf,
    /// Hardware address of the end.
    address: [u8; 6],
}

/// Starts a recording of the client's or the server's end.
///
/// # Panics
/// When tcpdump cannot be started.
#[must_use]
pub fn record_all(lab: &Lab, wire: &Wire, interface: &str) -> Recording {
    let at = |arguments: &[&str]| {
        if interface == "c0" { wire.at_client(arguments) } else { wire.at_server(arguments) }
    };
    let told = at(&["cat", &format!("/sys/class/net/{interface}/address")]).output().expect("an address");
    let told = String::from_utf8(told.stdout).expect("an address");
    let bytes: Vec<u8> =
        told.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("an address")).collect();
    let path = lab.path(&format!("{interface}.pcap"));
    let name = path.display().to_string();
    let tcpdump = at(&["tcpdump", "-i", interface, "-B", "65536", "--immediate-mode", "-U", "-w", &name])
        .stderr(Stdio::piped())
        .spawn();
    let mut tcpdump = tcpdump.expect("tcpdump");
    let mut said = [0; 9];
    tcpdump.stderr.as_mut().expect("a pipe").read_exact(&mut said).expect("tcpdump speaks");
    listens(&path);
    Recording { tcpdump, path, address: bytes.try_into().expect("six bytes") }
}

/// Waits until tcpdump takes what comes: it speaks a moment before it listens, and then begins its file.
fn listens(file: &std::path::Path) {
    wait_until("tcpdump", || std::fs::metadata(file).is_ok_and(|file| file.len() >= 24));
}

impl Recording {
    /// Ends it, once so many frames are there: those that the end has sent, and those that came to it.
    ///
    /// # Panics
    /// When they do not come, or tcpdump has missed some.
    #[must_use]
    pub fn frames(mut self, expected: usize) -> [Vec<Vec<u8>>; 2] {
        wait_until("all frames", || read_so_far(&self.path).len() >= expected);
        let pid = rustix::process::Pid::from_child(&self.tcpdump);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let mut said = String::new();
        self.tcpdump.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        let _ = self.tcpdump.wait();
        assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
        let all = read_capture(&self.path).into_iter().map(|packet| packet.data);
        let (sent, came) = all.partition(|frame| frame.get(6..12) == Some(&self.address[..]));
        [sent, came]
    }
}

/// Sends frames as they are: from standard input, each with its length in front.
const SEND: &str = "import socket, struct, sys\n\
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('c0', 0))\n\
    d = sys.stdin.buffer.read()\n\
    while d:\n    n, = struct.unpack('>I', d[:4]); s.send(d[4:4+n]); d = d[4+n:]\n";

/// Starts recording what comes to the server from the address of [`send_frames`].
///
/// # Panics
/// When tcpdump cannot be started.
#[must_use]
pub fn record(lab: &Lab, wire: &Wire, name: &str) -> Background {
    let out = lab.file(name);
    let filter = "ether src 02:77:00:00:00:01";
    let tcpdump = wire
        .at_server(&["tcpdump", "-i", "s0", "-Q", "in", "-U", "-w", &out, filter])
        .stderr(Stdio::piped())
        .spawn();
    let mut tcpdump = tcpdump.expect("tcpdump");
    let mut said = [0; 9];
    tcpdump.stderr.as_mut().expect("a pipe").read_exact(&mut said).expect("tcpdump speaks");
    listens(&lab.path(name));
    Background(tcpdump)
}

/// Sends frames from the client.
///
/// # Panics
/// When that cannot be done.
pub fn send_frames(wire: &Wire, frames: &[Vec<u8>]) {
    let send = wire.at_client(&["python3", "-c", SEND]).stdin(Stdio::piped()).spawn();
    let mut send = send.expect("python");
    let mut input = send.stdin.take().expect("a pipe");
    for frame in frames {
        let length = u32::try_from(frame.len()).expect("a frame");
        input.write_all(&length.to_be_bytes()).expect("a reader");
        input.write_all(frame).expect("a reader");
    }
    drop(input);
    assert!(send.wait().is_ok_and(|status| status.success()), "frames cannot be sent");
}

/// What was recorded, once there is as much as expected.
///
/// # Panics
/// When it does not come.
#[must_use]
pub fn recorded(lab: &Lab, name: &str, expected: usize) -> Vec<Vec<u8>> {
    let path = lab.path(name);
    let read = || -> Vec<Vec<u8>> { read_so_far(&path).into_iter().map(|packet| packet.data).collect() };
    wait_until("all frames", || {
        std::fs::metadata(&path).is_ok_and(|file| file.len() > 24) && read().len() >= expected
    });
    read()
}

/// Frames of no protocol that anybody knows: without a tag, with one, another protocol's, two, a priority; short and long.
///
/// # Panics
/// Never.
#[must_use]
pub fn tagged_frames(count: usize) -> Vec<Vec<u8>> {
    let tags: [&[u8]; 5] = [
        &[],
        &[0x81, 0, 0, 5],
        &[0x88, 0xa8, 0x0f, 0xff],
        &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9],
        &[0x81, 0, 0xe0, 0],
    ];
    let addresses = [2, 0x77, 0, 0, 0, 2, 2, 0x77, 0, 0, 0, 1];
    let made = |(number, tag): (usize, &&[u8])| {
        let length = [46, 100, 1000, 1480][number % 4];
        let payload: Vec<u8> = (0..length).map(|at| u8::try_from((at + number) % 256).unwrap_or(0)).collect();
        [&addresses[..], tag, &[0x88, 0xb5], &payload].concat()
    };
    tags.iter().cycle().take(count).enumerate().map(made).collect()
}
