#!/usr/bin/env bash
# Runs the fuzz targets (fuzz/README.md) and prints what each amounted to. They are ordinary tests; this gives them a budget.
#   deploy/checks/fuzz.sh [SECONDS] [TARGET]
# SECONDS is each target's own time (15); TARGET is a part of a target's name (all of them). TAILWATER_FUZZ_SEED repeats a run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-15} target=${2:-}
work=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

export TAILWATER_FUZZ_SECONDS=$seconds TAILWATER_FUZZ_REPORT="$work/report"
# What a target needs beyond this is unbounded; V8's reserved addresses do not count.
limit() { ulimit -S -d 6291456 2>/dev/null || true; }

began=$SECONDS code=0
cargo test --locked --workspace --lib --no-run
(
  limit
  cargo test --locked --workspace --lib --no-fail-fast -q -- "fuzz::${target}"
) || code=$?

if [ -s "$work/report" ]; then
  row='%-12s %12s %8s %10s %7s %6s %11s\n'
  printf "$row" target executions seconds 'per second' corpus pool 'slowest ms'
  sort "$work/report" | while IFS=$'\t' read -r name runs time rate corpus pool slowest; do
    printf "$row" "$name" "$runs" "$time" "$rate" "$corpus" "$pool" "$slowest"
  done
  awk -F '\t' '{ runs += $2; time += $3 } END { printf "%d targets, %d executions, %.1f minutes of fuzzing\n", NR, runs, time / 60 }' "$work/report"
fi
printf 'fuzz: %d s\n' $((SECONDS - began))
for last in "${TMPDIR:-/tmp}"/tailwater-fuzz-*.last; do
  [ "$code" -eq 0 ] || [ ! -e "$last" ] || printf 'fuzz: an input that ended its process, or was being tried: %s\n' "$last" >&2
done
[ -s "$work/report" ] || { printf 'fuzz: no target was run through (is there one named "%s"?)\n' "$target" >&2; exit 1; }
exit "$code"
