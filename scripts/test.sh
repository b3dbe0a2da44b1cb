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
step "build"
cargo build --workspace --bins
step "unit, property and integration tests"
if [ "$quick" = yes ]; then
    tests=()
    for file in tests/tests/*.rs; do
        name=$(basename "$file" .rs)
        [[ " ${long[*]} " == *" $name "* ]] || tests+=(--test "$name")
    done
    cargo test --workspace --exclude onvm-tests --quiet --no-fail-fast
    cargo test --package onvm-tests --lib "${tests[@]}" --quiet --no-fail-fast
    echo "left out: ${long[*]}; scripts/test.sh runs them"
else
    cargo test --workspace --quiet --no-fail-fast
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
    scripts/soak.sh 3
fi
step "all passed"
