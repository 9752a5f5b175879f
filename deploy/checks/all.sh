#!/usr/bin/env bash
# `make test`: everything that must hold before a change goes in, the quick checks first. Stops at the first step that fails and
# says which one it was and how to run it alone.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
began=$SECONDS
work=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-test.XXXXXX")
current='setup' alone='deploy/setup.sh --tests'

finish() {
  local code=$?
  deploy/kafka/kafka.sh stop "$work/kafka" || true
  if [ "$code" -eq 0 ]; then
    rm -rf "$work"
    printf '\n== all checks passed in %d s\n' $((SECONDS - began))
  else
    [ ! -f "$work/kafka/broker.log" ] || printf '\n== the broker'\''s log is kept: %s\n' "$work/kafka/broker.log" >&2
    printf '\n== FAILED: %s (exit code %d, after %d s). Alone: %s\n' "$current" "$code" $((SECONDS - began)) "$alone" >&2
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step NAME COMMAND…: says what begins, and how long it took.
step() {
  current=$1
  shift
  alone=$*
  local start=$SECONDS
  printf '\n== %s\n' "$current"
  "$@"
  printf '== %s: ok, %d s\n' "$current" $((SECONDS - start))
}

step setup deploy/setup.sh --tests
step format cargo fmt --all --check
step pages deploy/checks/docs.sh
step chart deploy/checks/chart.sh
step dependencies deploy/checks/deny.sh
# Clippy and the build that follows cannot share their results for the workspace's own crates, but they do for build scripts.
step clippy cargo clippy --locked --workspace --all-targets -- -D warnings
step build cargo build --locked --workspace --bin tailwater
step 'build of the tests' cargo test --locked --workspace --no-run

# One broker for the whole run; each test takes a prefix of its own.
current='Kafka' alone='deploy/kafka/kafka.sh start <dir>'
printf '\n== Kafka\n'
bootstrap=$(deploy/kafka/kafka.sh start "$work/kafka" --while $$ --fast-cleanup)
export TAILWATER_TEST_BROKERS=${bootstrap#bootstrap=}
export TAILWATER_ROOT=$root
printf '== Kafka: %s\n' "$TAILWATER_TEST_BROKERS"

# The same code is tried with the same inputs wherever it is tested, and other code with others: what fails here fails there.
if [ -z "${TAILWATER_FUZZ_SEED:-}" ] && code=$(git ls-files -s -- '*.rs' '*.toml' Cargo.lock fuzz 2>/dev/null | git hash-object --stdin); then
  export TAILWATER_FUZZ_SEED=$((16#${code:0:12}))
fi
step tests cargo test --locked --workspace --no-fail-fast
step fuzz deploy/checks/fuzz.sh 60
# Faults last: the run has a broker of its own, and builds the binary a second time, with its failpoints.
step chaos deploy/checks/chaos.sh
# A crash at each failpoint alone, with the binary that the chaos run has built.
step failpoints env TAILWATER_TEST_FAILPOINTS=1 TAILWATER_TEST_BINARY="${CARGO_TARGET_DIR:-$root/target}/chaos/tailwater" \
  cargo test --locked --workspace --test system failpoints::
