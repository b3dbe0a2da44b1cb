#!/usr/bin/env bash
# What `onvm-mgr up chains/capture.yaml` does, said with the command line: a capture through two network functions.
# Usage: scripts/chain-by-shell.sh [CAPTURE [OUT]]   (default: tests/data/sample.pcap, chains/out.pcap)
# It takes the programs from $BIN, or builds them.
set -euo pipefail
cd "$(dirname "$0")/.."

capture=${1:-tests/data/sample.pcap}
out=${2:-chains/out.pcap}
if [ -z "${BIN:-}" ]; then
    cargo build --release --quiet -p onvm-mgr -p nf-forward -p nf-monitor
    BIN=${CARGO_TARGET_DIR:-target}/release
fi
work=$(mktemp -d)
pids=()
cleanup() {
    # Whoever is still there when the script is interrupted.
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
export ONVM_SOCKET=$work/onvm.sock

# The manager waits for all services of its chain before it opens its ports.
"$BIN/onvm-mgr" --port "pcap:in=$capture,out=$out" --chain 1,2 &
pids+=($!)
for _ in $(seq 500); do [ -S "$ONVM_SOCKET" ] && break; sleep 0.02; done
"$BIN/nf-forward" -r 1 &
pids+=($!)
"$BIN/nf-monitor" -r 2 --top 5 &
pids+=($!)

failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
pids=()
exit $failed
