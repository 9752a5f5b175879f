#!/usr/bin/env bash
# `make test`: everything that must hold before a change goes in, the quick checks first. Stops at the first step that fails and
# says which one it was and how to run it alone. Ends with a table of the steps and their times.
#
#   deploy/checks/all.sh              every step
#   deploy/checks/all.sh system fuzz  these steps alone, with what they need
#
# The steps: setup format pages chart dependencies clippy build tests system fuzz chaos failpoints. `system` is a part of `tests`
# and runs only where it is named.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
began=$SECONDS
work=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-test.XXXXXX")
current='setup' alone='deploy/setup.sh --tests' table=''

known=' setup format pages chart dependencies clippy build tests system fuzz chaos failpoints '
for name in "$@"; do
  case "$known" in *" $name "*) ;; *) printf 'there is no step `%s`; the steps are:%s\n' "$name" "${known% }" >&2; exit 2 ;; esac
done
selected=" $* "

# wanted NAME: is this step to be run?
wanted() {
  case "$selected" in
    '  ') [ "$1" != system ] ;;
    *" $1 "*) true ;;
    *) false ;;
  esac
}

finish() {
  local code=$?
  deploy/kafka/kafka.sh stop "$work/kafka" || true
  if [ "$code" -eq 0 ]; then
    rm -rf "$work"
    printf '\n%s\n== all checks passed in %d s\n' "$table" $((SECONDS - began))
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
  table+=$(printf '  %-20s %5d s' "$current" $((SECONDS - start)))$'\n'
}

step setup deploy/setup.sh --tests
! wanted format || step format cargo fmt --all --check
! wanted pages || step pages deploy/checks/docs.sh
! wanted chart || step chart deploy/checks/chart.sh
! wanted dependencies || step dependencies deploy/checks/deny.sh
# Clippy and the build that follows cannot share their results for the workspace's own crates, but they do for build scripts.
! wanted clippy || step clippy cargo clippy --locked --workspace --all-targets -- -D warnings
if wanted build || wanted tests || wanted system; then
  step build cargo build --locked --workspace --bin tailwater
fi

export TAILWATER_ROOT=$root
if wanted tests || wanted system; then
  step 'build of the tests' cargo test --locked --workspace --no-run
  # One broker for the whole run; each test takes a prefix of its own.
  current='Kafka' alone='deploy/kafka/kafka.sh start <dir>'
  printf '\n== Kafka\n'
  bootstrap=$(deploy/kafka/kafka.sh start "$work/kafka" --while $$ --fast-cleanup)
  export TAILWATER_TEST_BROKERS=${bootstrap#bootstrap=}
  printf '== Kafka: %s\n' "$TAILWATER_TEST_BROKERS"
fi

# The same code is tried with the same inputs wherever it is tested, and other code with others: what fails here fails there.
if [ -z "${TAILWATER_FUZZ_SEED:-}" ] && code=$(git ls-files -s -- '*.rs' '*.toml' Cargo.lock fuzz 2>/dev/null | git hash-object --stdin); then
  export TAILWATER_FUZZ_SEED=$((16#${code:0:12}))
fi
# Every corpus is replayed in `tests`; the step `fuzz` gives each target its time.
! wanted tests || step tests env TAILWATER_FUZZ_SECONDS=0 cargo test --locked --workspace --no-fail-fast
! wanted system || step system cargo test --locked --workspace --no-fail-fast --test system
# Short on purpose: `make fuzz` and `make chaos` have the long versions.
! wanted fuzz || step fuzz deploy/checks/fuzz.sh "${FUZZ_SECONDS:-5}"
# Faults last: the run has a broker of its own, and builds the binary a second time, with its failpoints.
! wanted chaos || step chaos env MINUTES="${MINUTES:-1}" deploy/checks/chaos.sh
# A crash at each failpoint, in groups, with the binary that the chaos run has built.
if wanted failpoints; then
  failpoints=${CARGO_TARGET_DIR:-$root/target}/chaos/tailwater
  if ! wanted chaos; then
    step 'build with failpoints' deploy/checks/chaos.sh --build
  fi
  [ -n "${TAILWATER_TEST_BROKERS:-}" ] || {
    bootstrap=$(deploy/kafka/kafka.sh start "$work/kafka" --while $$ --fast-cleanup)
    export TAILWATER_TEST_BROKERS=${bootstrap#bootstrap=}
  }
  step failpoints env TAILWATER_TEST_FAILPOINTS=1 TAILWATER_TEST_BINARY="$failpoints" \
    cargo test --locked --workspace --test system failpoints::
fi
