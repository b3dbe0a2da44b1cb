#!/bin/sh
# Runs onvm-lib's unit tests, and its rings between threads and between processes, under the sanitizers.
#
#   scripts/sanitize.sh [address|thread]     both when none is named
#
# Sanitizers are an unstable flag of rustc: the nightly toolchain is used where there is one, else the stable one is
# told to take it. The standard library comes compiled without them, so ThreadSanitizer knows its locks and
# channels only by the system calls and libc functions beneath; tsan-suppressions.txt names what that makes it
# report wrongly. Properties are checked on fewer cases than usual; PROPTEST_CASES chooses another number.
set -eu
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
export PROPTEST_CASES="${PROPTEST_CASES:-32}"
export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1"
export TSAN_OPTIONS="suppressions=$PWD/scripts/tsan-suppressions.txt:halt_on_error=1:second_deadlock_stack=1"

cargo="cargo"
if cargo +nightly --version >/dev/null 2>&1; then
    cargo="cargo +nightly"
else
    export RUSTC_BOOTSTRAP=1
fi

# Naming the target, though it is the host's, keeps the flags from build scripts and macros.
check() {
    echo "== $1"
    RUSTFLAGS="-Zsanitizer=$1 -Cforce-frame-pointers=yes $3" CARGO_TARGET_DIR="$2" \
        $cargo test -p onvm-lib --target "$target" --lib --test ring_processes
}

case "${1:-both}" in
address) check address target-asan "" ;;
thread) check thread target-tsan "-Cunsafe-allow-abi-mismatch=sanitizer" ;;
both)
    check address target-asan ""
    check thread target-tsan "-Cunsafe-allow-abi-mismatch=sanitizer"
    ;;
*)
    echo "usage: scripts/sanitize.sh [address|thread]" >&2
    exit 2
    ;;
esac
