#!/usr/bin/env bash
# Sends a real capture through a chain of two network functions, each a process of its own, and shows the ledger.
# No root, no huge pages, no network card. Usage: scripts/demo.sh [CAPTURE]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build

capture=${1:-tests/data/sample.pcap}
echo "building (the first time takes a minute or two) ..."
cargo build --release --quiet -p onvm-mgr -p nf-forward -p nf-monitor
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

show() { printf '\n$ %s\n' "$*"; }

show "onvm-mgr --port pcap:in=$capture,out=out.pcap &"
"$bin/onvm-mgr" --port "pcap:in=$capture,out=$work/out.pcap" >"$work/ledger" &
manager=$!
pids+=("$manager")
for _ in $(seq 200); do [ -S "$ONVM_SOCKET" ] && break; sleep 0.02; done

show "nf-monitor -r 2 &"
"$bin/nf-monitor" -r 2 --top 5 >"$work/monitor" &
pids+=($!)
# The monitor must be there before packets for it are: the manager waits for service 1 only.
for _ in $(seq 200); do "$bin/onvm-mgr" nf list | grep -q nf-monitor && break; sleep 0.02; done

show "nf-forward -r 1 -d 2 &"
"$bin/nf-forward" -r 1 -d 2 >"$work/forward" &
pids+=($!)

failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
pids=()

for part in forward monitor ledger; do
    printf '\n--- what %s printed\n' "$part"
    cat "$work/$part"
done

echo
if cmp -s "$capture" "$work/out.pcap"; then
    echo "out.pcap is the same as $capture, to the byte."
elif command -v tshark >/dev/null 2>&1; then
    fields() { tshark -r "$1" -T fields -e frame.time_epoch -e frame.len -e frame.protocols 2>/dev/null; }
    if [ "$(fields "$capture")" = "$(fields "$work/out.pcap")" ]; then
        echo "tshark finds the same packets in the same order with the same timestamps in out.pcap."
    else
        echo "tshark finds a difference between $capture and out.pcap." >&2
        failed=1
    fi
else
    echo "out.pcap has another format than $capture; install tshark to compare them."
fi
exit "$failed"
