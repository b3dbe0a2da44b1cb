#!/usr/bin/env bash
# Measures everything and prints one table: ours, floor or peer, ratio, mark, met or not.
#
#   scripts/bench.sh [ROW…] [--quick] [--json] [--list] [--rounds N] [--no-priority]
#
# Root is not needed, but with it huge pages are reserved (and given back), so that DPDK and the platform stand on the
# same ground, and the measured processes get priority over what else runs. About eight minutes; a row takes less.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh bench >&2

bin=${CARGO_TARGET_DIR:-target}/release
dpdk=()
if pkg-config --exists libdpdk 2>/dev/null; then dpdk=(--features onvm-mgr/dpdk); fi
cargo build --release --quiet -p onvm-bench -p onvm-mgr -p nf-forward -p nf-firewall -p nf-speedtest "${dpdk[@]}"
cargo build --release --quiet -p onvm-tests --bin cost_nf
if pkg-config --exists libdpdk 2>/dev/null; then
    # shellcheck disable=SC2046 # several flags are meant
    cc -O3 -march=native -Wall -Wextra bench/dpdk/ring_pair.c -o "$bin/dpdk-ring-pair" \
        $(pkg-config --cflags --libs libdpdk)
    # shellcheck disable=SC2046
    cc -O3 -march=native -Wall -Wextra bench/dpdk/acl.c -o "$bin/dpdk-acl" $(pkg-config --cflags --libs libdpdk)
else
    rm -f "$bin/dpdk-ring-pair" "$bin/dpdk-acl"
fi

# 2 MiB each: DPDK wants 64, the platform's pool or a bare one 40; DPDK's tables for 100,000 rules 560.
pages=/proc/sys/vm/nr_hugepages wanted=112
case " $* " in
"  " | " --"* | *" classifier "* | *" made-rules "*) wanted=640 ;;
esac
before=$(cat $pages)
if [ -w $pages ] && [ "$before" -lt $wanted ]; then
    trap 'echo $before >$pages' EXIT
    # The machine may not have so many; then there are fewer.
    echo $wanted >$pages
fi
"$bin/onvm-bench" "$@"
