#!/usr/bin/env bash
# The chaos run: the program with failpoints compiled in, several processes, a real Kafka, everything going wrong.
#
#   chaos.sh                       two minutes with a new seed
#   SEED=7 MINUTES=60 chaos.sh     an hour; the same seed draws the same rows and the same faults
#   EMBEDDED=1 chaos.sh            one process with a broker of its own (run --embedded)
#   BUG=gate_removed chaos.sh      with a planted defect, which the run must find
#   chaos.sh --build               builds the binary with failpoints, and runs nothing
#   chaos.sh --proof               every planted defect in turn: a harness that cannot fail proves nothing
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-target}
bugs='commit_before_outcome gate_removed ledger_skipped state_not_restored dedupe_off'

# Failpoints are never in the ordinary binary: this one lies beside it, under a name of its own.
cargo build --locked --workspace --bin tailwater --bin chaos --features tailwater/failpoints
mkdir -p "$target/chaos"
cp "$target/debug/tailwater" "$target/chaos/tailwater"
cp "$target/debug/chaos" "$target/chaos/chaos"
[ "${1:-}" != --build ] || exit 0
export TAILWATER_TEST_BINARY=$PWD/$target/chaos/tailwater
case $target in /*) export TAILWATER_TEST_BINARY=$target/chaos/tailwater ;; esac
export TAILWATER_ROOT=$PWD

arguments=()
[ -z "${SEED:-}" ] || arguments+=(--seed "$SEED")
[ -z "${RATE:-}" ] || arguments+=(--rate "$RATE")
[ -z "${EMBEDDED:-}" ] || arguments+=(--embedded)

if [ "${1:-}" = --proof ]; then
  for bug in $bugs; do
    printf '\n== planted: %s\n' "$bug"
    "$target/chaos/chaos" "${arguments[@]}" --minutes "${MINUTES:-1}" --bug "$bug"
  done
  exit 0
fi
[ -z "${MINUTES:-}" ] || arguments+=(--minutes "$MINUTES")
[ -z "${BUG:-}" ] || arguments+=(--bug "$BUG")
exec "$target/chaos/chaos" "${arguments[@]}"
