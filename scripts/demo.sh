#!/usr/bin/env bash
# Sends a capture of real use and real attacks through a chain of four network functions, each a process of its own, and
# shows what each of them made of it. No root, no huge pages, no network card.
#
#   capture ─▶ onvm-mgr ─▶ nf-firewall ─▶ nf-ids ─▶ nf-loadbalancer ─▶ nf-monitor ─▶ capture
#
# Usage: scripts/demo.sh [CAPTURE]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build

capture=${1:-tests/data/attacks.pcap}
echo "building (the first time takes some minutes) ..."
nfs=(nf-firewall nf-ids nf-loadbalancer nf-monitor)
cargo build --release --quiet -p onvm-mgr "${nfs[@]/#/-p}"
bin=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
pids=()
cleanup() {
    # Whoever is still there when the script is interrupted.
    kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
export ONVM_SOCKET=$work/onvm.sock

# Five times as fast as it was recorded, so that the firewall's rates mean something.
echo "\$ onvm-mgr --port pcap:in=$capture,out=out.pcap,speed=5 --chain 1,2,3,4 &"
"$bin/onvm-mgr" --port "pcap:in=$capture,out=$work/out.pcap,speed=5" --chain 1,2,3,4 >"$work/onvm-mgr" &
pids+=($!)
for _ in $(seq 200); do [ -S "$ONVM_SOCKET" ] && break; sleep 0.02; done

start() { # service id, program, arguments
    local service=$1 program=$2
    shift 2
    echo "\$ $program -r $service $* &"
    "$bin/$program" -r "$service" "$@" >"$work/$program" 2>"$work/$program.log" &
    pids+=($!)
}
start 1 nf-firewall --rules chains/edge/rules.yaml
start 2 nf-ids --rules chains/edge/attacks.rules --set HOME_NET=203.0.113.0/24 --fast "$work/alerts"
start 3 nf-loadbalancer --services chains/edge/services.yaml --no-health-checks
start 4 nf-monitor --top 5

failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
pids=()

for part in nf-firewall nf-ids nf-loadbalancer nf-monitor onvm-mgr; do
    printf '\n--- what %s printed\n' "$part"
    cat "$work/$part"
    if [ -s "$work/$part.log" ]; then
        printf '    and logged\n'
        tail -n 5 "$work/$part.log"
    fi
    if [ $part = nf-ids ]; then
        printf '    and its alerts\n'
        cat "$work/alerts"
    fi
done

if command -v tshark >/dev/null 2>&1; then
    printf '\n--- what tshark finds in out.pcap\n'
    tshark -q -r "$work/out.pcap" -z io,phs 2>/dev/null | sed -n '4,16p'
fi
exit "$failed"
