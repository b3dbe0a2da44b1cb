#!/usr/bin/env bash
# Sets up, builds, and runs every test. Usage: scripts/test.sh [--quick]
# --quick leaves out what takes minutes: sanitizers, the model checker, the soak.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=no
for argument in "$@"; do
    case $argument in
    --quick) quick=yes ;;
    *)
        echo "usage: scripts/test.sh [--quick]" >&2
        exit 2
        ;;
    esac
done
# Tests of the whole platform that take longest; --quick leaves them out.
long=(apply elastic fair hostile matrix scaling soak)
scripts/setup.sh test
started=$(date +%s)
step() { printf '\n=== %s (%d s so far)\n' "$1" $(($(date +%s) - started)); }

step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings
# The manager under test has DPDK where it is installed, so that all is compiled once.
dpdk=()
if pkg-config --exists libdpdk 2>/dev/null; then
    dpdk=(--features onvm-mgr/dpdk)
    cargo clippy --quiet --workspace --all-targets "${dpdk[@]}" -- -D warnings
fi
step "build"
cargo build --workspace --bins "${dpdk[@]}"
step "unit, property and integration tests"
if [ "$quick" = yes ]; then
    tests=()
    for file in tests/tests/*.rs; do
        name=$(basename "$file" .rs)
        [[ " ${long[*]} " == *" $name "* ]] || tests+=(--test "$name")
    done
    cargo test --workspace --exclude onvm-tests "${dpdk[@]}" --quiet --no-fail-fast
    cargo test --package onvm-tests --lib "${tests[@]}" --quiet --no-fail-fast
    echo "left out: ${long[*]}; scripts/test.sh runs them"
else
    cargo test --workspace "${dpdk[@]}" --quiet --no-fail-fast
fi
if [ "$quick" = no ]; then
    step "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
    step "model checker"
    scripts/model.sh
    step "sanitizers"
    scripts/sanitize.sh
    step "demo"
    scripts/demo.sh
    step "soak"
    scripts/soak.sh 5
fi
step "all passed"
