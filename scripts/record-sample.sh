#!/usr/bin/env bash
# Records tests/data/sample.pcap, the project's own capture: real traffic of the kernel's network stack
# between namespaces that this script makes and removes again. Nothing leaves the machine.
#
#   client ──(recorded here)── router ── server
#
# In it: ARP and neighbour discovery; IPv4 and IPv6 pings, small and fragmented; HTTP of several sizes; TCP
# that ends in resets and refusals; UDP echo, DNS, fragments, broadcast, multicast; time exceeded and all
# common kinds of unreachable; the same through VLAN 5.
#
# Usage: scripts/record-sample.sh [FILE]        (default: tests/data/sample.pcap, replaced when all went well)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
output=${1:-$root/tests/data/sample.pcap}

die() { echo "record-sample: $*" >&2; exit 1; }

# tool:package, as Debian and Ubuntu name it
missing=()
for need in ip:iproute2 tcpdump:tcpdump ethtool:ethtool python3:python3; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -eq 0 ] || die "tools are missing; apt-get install ${missing[*]}"
[ "$(id -u)" -eq 0 ] || die "needs root, for network namespaces and recording; run it with sudo"
[ -c /dev/net/tun ] || die "/dev/net/tun is missing, which the VLAN ends need; modprobe tun"

id=onvm-sample-$$
client=$id-client router=$id-router server=$id-server
work=$(mktemp -d)
pids=()

cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for ns in "$client" "$router" "$server"; do ip netns delete "$ns" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

in_ns() { ip netns exec "$@"; }

# Runs in the background, to be stopped at the end. Spelled out: a function would get a shell of its own,
# which takes the signal and leaves the program running.
start() { ip netns exec "$@" & pids+=($!); }

# ---- the programs that talk -----------------------------------------------------------------------------

# One end of a VLAN: a tap that the kernel's stack uses, its frames tagged and sent on the veth. Done here
# because kernels without 8021q are common in small machines, and the frames on the wire are the same.
cat >"$work/vlan.py" <<'PY'
import fcntl, os, select, socket, struct, sys
lower, name, vid = sys.argv[1], sys.argv[2], int(sys.argv[3])
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF, TAP without header
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))     # ETH_P_ALL
wire.setsockopt(263, 8, 1)                                                   # PACKET_AUXDATA: has the tag
wire.bind((lower, 3))
while True:
    for ready in select.select([tap, wire], [], [])[0]:
        if ready == tap:
            frame = os.read(tap, 65536)
            wire.send(frame[:12] + struct.pack("!HH", 0x8100, vid) + frame[12:])
            continue
        frame, extra, _, sender = wire.recvmsg(65536, 256)
        for _, _, aux in extra:
            status, tci = struct.unpack_from("I12xH", aux.ljust(20, b"\0"))
            if sender[2] != socket.PACKET_OUTGOING and status & 0x10 and tci & 0xFFF == vid:
                try:
                    os.write(tap, frame)
                except OSError:
                    pass  # the tap is not up yet
PY

cat >"$work/server.py" <<'PY'
import http.server, socket, socketserver, struct, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def body(self):
        word = self.path.strip("/")
        return (b"onvm sample capture\n" * 6000)[:int(word)] if word.isdigit() else None
    def do_GET(self):
        body = self.body()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")
    do_HEAD = do_GET
    def do_POST(self):
        got = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.send_header("X-Got", str(got))
        self.end_headers()
    def log_message(self, *_):
        pass
class Http(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class EchoTcp(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data.upper())
class ResetTcp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(100)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
class Tcp(socketserver.ThreadingTCPServer):
    address_family, allow_reuse_address, daemon_threads = socket.AF_INET6, True, True
    def shutdown_request(self, request):
        self.close_request(request)
class EchoUdp(socketserver.BaseRequestHandler):
    def handle(self):
        data, socket_ = self.request
        socket_.sendto(data, self.client_address)
class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        query, socket_ = self.request
        question = query[12:]
        kind, = struct.unpack_from("!H", question, len(question) - 4)
        known = b"\4onvm\4test" in question
        data = bytes([10, 77, 2, 2]) if kind == 1 else socket.inet_pton(socket.AF_INET6, "fd77:2::2")
        answer = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data if known else b""
        flags = 0x8580 if known else 0x8583
        socket_.sendto(query[:2] + struct.pack("!5H", flags, 1, known, 0, 0) + question + answer,
                       self.client_address)
class Udp(socketserver.ThreadingUDPServer):
    address_family, max_packet_size = socket.AF_INET6, 65536
servers = [Http(("::", 80), Handler), Tcp(("::", 7), EchoTcp), Tcp(("::", 9), ResetTcp),
           Udp(("::", 7), EchoUdp), Udp(("::", 53), Dns)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
PY

cat >"$work/client.py" <<'PY'
import http.client, os, socket, struct, sys, time
V4, V6 = socket.AF_INET, socket.AF_INET6
UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
def family(host):
    return V6 if ":" in host else V4
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data + b"\0") // 2), (data + b"\0")[:len(data) + len(data) % 2]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
def ping(host, count, size, dont_fragment=False):
    six = family(host) == V6
    s = socket.socket(family(host), socket.SOCK_RAW, 58 if six else 1)
    s.settimeout(0.3)
    if not six:
        s.setsockopt(0, 10, 2 if dont_fragment else 0)  # IP_MTU_DISCOVER: do or don't
    for seq in range(count):
        data = bytes(i & 0xFF for i in range(size))
        head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xFFFF, seq)
        if not six:  # the kernel fills in ICMPv6's checksum, not ICMP's
            head = head[:2] + struct.pack("!H", checksum(head + data)) + head[4:]
        try:
            s.sendto(head + data, (host, 0))
            while s.recv(65536)[0 if six else 20] not in (0, 129, 3, 1, 2):
                pass
        except OSError:
            pass
def web(host):
    c = http.client.HTTPConnection(host, 80, timeout=5)
    for path in ("/0", "/1", "/100", "/1460", "/10000", "/nothing"):
        c.request("GET", path, headers={"User-Agent": "onvm-sample"})
        c.getresponse().read()
    c.close()
    for method, path, body in (("HEAD", "/5000", None), ("GET", "/50000", None), ("POST", "/in", b"x" * 9000)):
        c = http.client.HTTPConnection(host, 80, timeout=5)
        c.request(method, path, body)
        c.getresponse().read()
        c.close()
def chatter(host, lines):
    with socket.create_connection((host, 7), 5) as s:
        for line in range(lines):
            s.sendall(b"line %d of a chat\n" % line)
            s.recv(4096)
        s.shutdown(socket.SHUT_WR)
        while s.recv(4096):
            pass
def resets(host):
    for _ in range(5):
        try:
            with socket.create_connection((host, 9), 5) as s:
                s.sendall(b"goodbye")
                s.recv(100)
        except ConnectionResetError:
            pass
    for port in (1, 22, 443, 8080):
        try:
            socket.create_connection((host, port), 5)
        except ConnectionRefusedError:
            pass
def udp(host, port, data, ttl=None, wait=0.3, before=()):
    with socket.socket(family(host), UDP) as s:
        s.settimeout(wait)
        for option in before:
            s.setsockopt(*option)
        if ttl:
            s.setsockopt(*((41, 16) if family(host) == V6 else (0, 2)), ttl)
        try:
            s.connect((host, port))
            s.send(data)
            s.recv(65536)
        except OSError:
            pass
def dns(host):
    for number, name in enumerate(("www.onvm.test", "a.b.c.onvm.test", "no.such.name")):
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
        for kind in (1, 28):
            udp(host, 53, struct.pack("!6H", 0x100 + number, 0x100, 1, 0, 0, 0) + labels
                + struct.pack("!HH", kind, 1))
def groups(device):
    index = socket.if_nametoindex(device)
    with socket.socket(V4, UDP) as s, socket.socket(V6, UDP) as s6:
        s.setsockopt(0, 35, socket.inet_aton("239.77.1.1") + b"\0\0\0\0" + struct.pack("i", index))
        s6.setsockopt(41, 20, socket.inet_pton(V6, "ff15::7701") + struct.pack("i", index))
        s.sendto(b"to the group", ("239.77.1.1", 7701))
        s6.sendto(b"to the group", ("ff15::7701", 7701, 0, index))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(b"to everybody", ("10.77.1.255", 7701))
        time.sleep(1)
def everything(hosts):
    for host in hosts:
        for size in (56, 0, 1000, 1452, 3000, 8000):
            ping(host, 4, size)
        web(host)
        chatter(host, 40)
        resets(host)
        for size in (0, 1, 18, 512, 1400, 1472, 4000, 9000):
            udp(host, 7, bytes(size))
            udp(host, 7, b"again" * (size // 5))
        dns(host)
        for port in (9, 33434, 33435):
            udp(host, port, b"nobody listens there")
        for _ in range(3):
            udp(host, 33434, b"not that far", ttl=1)
if sys.argv[1] == "main":
    groups(sys.argv[2])
    everything(["10.77.2.2", "fd77:2::2"])
    for host in ("10.77.3.1", "10.77.4.1", "fd77:3::1", "fd77:4::1"):  # no route, prohibited
        udp(host, 7, b"nowhere")
    for host in ("10.77.2.99", "fd77:2::99"):                          # nobody there
        udp(host, 7, b"hello?", wait=4)
    ping("10.77.5.2", 2, 1472, dont_fragment=True)                     # smaller MTU on the way
    ping("fd77:5::2", 2, 1452)
else:
    everything(["10.77.6.2", "fd77:6::2"])
PY

# ---- the network ----------------------------------------------------------------------------------------

for ns in "$client" "$router" "$server"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
done
ip -n "$client" link add lan0 type veth peer name lan1 netns "$router"
ip -n "$router" link add net0 type veth peer name net1 netns "$server"
# Frames as a wire has them: checksums filled in, no segments larger than the MTU.
for end in "$client lan0" "$router lan1" "$router net0" "$server net1"; do
    read -r ns device <<<"$end"
    in_ns "$ns" ethtool -K "$device" tx off tso off gso off gro off >/dev/null 2>"$work/ethtool" \
        || die "cannot turn off offloads of $device: $(cat "$work/ethtool")"
done
in_ns "$router" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
in_ns "$server" sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0

ip -n "$client" link set lan0 up
ip -n "$router" link set lan1 up
start "$client" tcpdump -Z root -i lan0 -n -B 8192 --time-stamp-precision=nano -w "$work/sample.pcap" \
    2>"$work/tcpdump"
recorder=${pids[-1]}
for _ in $(seq 50); do grep -q listening "$work/tcpdump" && break; sleep 0.1; done
grep -q listening "$work/tcpdump" || die "tcpdump does not start: $(cat "$work/tcpdump")"

start "$client" python3 "$work/vlan.py" lan0 vlan5 5
start "$router" python3 "$work/vlan.py" lan1 vlan5 5
for ns in "$client" "$router"; do
    for _ in $(seq 50); do ip -n "$ns" link set vlan5 up 2>/dev/null && break; sleep 0.1; done
done
ip -n "$router" link set net0 up
ip -n "$server" link set net1 up

address() { # namespace, device, network, host
    ip -n "$1" address add "10.77.$3.$4/24" broadcast + dev "$2"
    ip -n "$1" address add "fd77:$3::$4/64" dev "$2"
}
address "$client" lan0 1 2
address "$router" lan1 1 1
address "$router" net0 2 1
address "$server" net1 2 2
address "$client" vlan5 7 2
address "$router" vlan5 7 1
address "$server" lo 5 2
address "$server" lo 6 2
sleep 2.5 # duplicate address detection, which is recorded as well

ip -n "$client" route add default via 10.77.1.1
ip -n "$client" route add default via fd77:1::1
ip -n "$client" route add 10.77.6.0/24 via 10.77.7.1 # through the VLAN
ip -n "$client" route add fd77:6::/64 via fd77:7::1
ip -n "$server" route add default via 10.77.2.1
ip -n "$server" route add default via fd77:2::1
ip -n "$router" route add prohibit 10.77.4.0/24
ip -n "$router" route add prohibit fd77:4::/64
for last in "5.0/24 mtu lock 1300" "6.0/24"; do
    # shellcheck disable=SC2086 # the words are meant to be split
    ip -n "$router" route add 10.77.$last via 10.77.2.2
done
ip -n "$router" route add fd77:5::/64 via fd77:2::2 mtu 1300
ip -n "$router" route add fd77:6::/64 via fd77:2::2

# ---- the recording --------------------------------------------------------------------------------------

start "$server" python3 "$work/server.py"
sleep 1
echo "record-sample: recording, about 20 seconds" >&2
in_ns "$client" timeout 120 python3 "$work/client.py" main lan0
in_ns "$client" timeout 120 python3 "$work/client.py" vlan vlan5
sleep 1
kill -INT "$recorder"
for _ in $(seq 100); do kill -0 "$recorder" 2>/dev/null || break; sleep 0.1; done
grep -q '^0 packets dropped by kernel' "$work/tcpdump" || die "tcpdump lost packets: $(cat "$work/tcpdump")"

# ---- what is in it --------------------------------------------------------------------------------------

text() { tcpdump -nr "$work/sample.pcap" "$@" 2>/dev/null; }
count() { printf '  %-34s %6d\n' "$1" "$(text "${@:2}" | wc -l)"; }
vlan() { printf '(%s) or (vlan 5 and (%s))' "$1" "$1"; }

bad=$(text -vv | grep -cE 'incorrect|bad (udp|ip|hdr )?cksum' || true)
[ "$bad" -eq 0 ] || die "$bad packets have incomplete checksums; did ethtool turn off tx offload?"
mkdir -p "$(dirname "$output")"
mv "$work/sample.pcap" "$output.new" && chmod 644 "$output.new" && mv "$output.new" "$output"
ln -s "$output" "$work/sample.pcap"

echo "$output: $(stat -c %s "$output") bytes, $(text | wc -l) packets, checksums complete"
count "VLAN 5" vlan 5
count "ARP" "$(vlan arp)"
count "IPv4" "$(vlan ip)"
count "IPv6" "$(vlan ip6)"
count "TCP" "$(vlan tcp)"
count "  with RST" "$(vlan 'ip and tcp[13] & 4 != 0 or (ip6 and ip6[6] = 6 and ip6[53] & 4 != 0)')"
count "UDP" "$(vlan udp)"
count "  DNS" "$(vlan 'udp port 53')"
count "ICMP" "$(vlan icmp)"
count "  time exceeded" "$(vlan 'icmp[0] = 11')"
count "  unreachable" "$(vlan 'icmp[0] = 3')"
count "ICMPv6" "$(vlan icmp6)"
count "  neighbour discovery" "$(vlan 'icmp6 and ip6[40] >= 133 and ip6[40] <= 137')"
count "IPv4 fragments" "$(vlan 'ip[6:2] & 0x3fff != 0')"
count "IPv6 fragments" "$(vlan 'ip6[6] = 44')"
count "IGMP" "$(vlan igmp)"
