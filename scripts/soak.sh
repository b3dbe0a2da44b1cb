#!/usr/bin/env bash
# Has network functions killed, hung, scaled, replaced and steered at random, chains edited and managers killed, under mixed
# traffic, and checks after each step that nothing is lost, reordered or leaked. A report at the end; exit code 1 when something
# happened that must not, with where its logs are and the seed that repeats the choices.
#
#   scripts/soak.sh [MINUTES, default 5] [--seed N] [--json] [--rate PPS] [--verbose] [--release]
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=5
profile=dev
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --seed | --rate | --without)
        [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
        arguments+=("$1" "$2")
        shift
        ;;
    --json | --verbose) arguments+=("$1") ;;
    --release) profile=release ;;
    [0-9]*) minutes=$1 ;;
    *)
        echo "usage: scripts/soak.sh [MINUTES] [--seed N] [--json] [--rate PPS] [--verbose] [--without OPERATION] [--release]" >&2
        exit 2
        ;;
    esac
    shift
done
seconds=$(awk -v minutes="$minutes" 'BEGIN { printf "%d", minutes * 60 }')

scripts/setup.sh build >&2
cargo build --quiet --workspace --bins --profile "$profile"
directory=debug
[ "$profile" = dev ] || directory=$profile
exec "${CARGO_TARGET_DIR:-target}/$directory/soak" --seconds "$seconds" "${arguments[@]}"
