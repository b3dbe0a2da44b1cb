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
cargo test --workspace --quiet --no-fail-fast
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
