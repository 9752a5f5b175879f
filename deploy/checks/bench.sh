#!/usr/bin/env bash
# `make bench`: release builds, then every part of the benchmarks beside its limit, one after the other.
#
#   deploy/checks/bench.sh [part…]    all parts, or these; `deploy/checks/bench.sh parts` lists them
#
# Figures go to benches/results/<date>-<commit>.json and .md. COUNT=0 leaves out the second build, which counts allocated bytes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target="${CARGO_TARGET_DIR:-$PWD/target}"

cargo build --release --locked --workspace --bin tailwater-bench --bin tailwater

counted=0
for part in "${@:-route}"; do
  case "$part" in resolve | route) counted=1 ;; esac
done
if [ "$counted" -eq 1 ] && [ "${COUNT:-1}" -ne 0 ]; then
  # The same program with an allocator that counts; in a place of its own, because cargo puts both into the same one.
  kept=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-bench.XXXXXX")
  trap 'rm -rf "$kept"' EXIT
  cp "$target/release/tailwater" "$kept/plain"
  cargo build --release --locked --workspace --bin tailwater --features tailwater/alloc-metrics
  mv "$target/release/tailwater" "$kept/counting"
  mv "$kept/plain" "$target/release/tailwater"
  export TAILWATER_BENCH_COUNTING="$kept/counting"
fi

"$target/release/tailwater-bench" "$@"
