#!/bin/sh
# Runs the models of the ring under the checker loom and prints how many executions each took.
#
#   scripts/model.sh [NAME]     NAME: part of a test's name, such as death or bell
set -eu
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target-loom}"
# Some models must fail, to show that they could; what they print about it is noise without a failure.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
RUSTFLAGS="--cfg loom" RUST_BACKTRACE=0 cargo test -p onvm-lib --release --lib "ring::model::${1:-}" -- \
    --nocapture --test-threads=1 >"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    cat "$log"
    exit "$status"
fi
grep -E 'executions$|^test result' "$log"
