#!/usr/bin/env bash
# `make check`: what a change must pass before it is shown to anybody, in about two minutes with a warm build: format, pages, clippy
# and the unit tests. It needs no broker. `make test` has the rest.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
began=$SECONDS

step() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  "$@" || { printf '\n== FAILED: %s. Alone: %s\n' "$name" "$*" >&2; exit 1; }
  printf '== %s: ok, %d s\n' "$name" $((SECONDS - start))
}

step format cargo fmt --all --check
step pages deploy/checks/docs.sh
step clippy cargo clippy --locked --workspace --all-targets -- -D warnings
# Zero seconds of fuzzing replay every corpus and try nothing new.
step 'unit tests' env TAILWATER_FUZZ_SECONDS=0 cargo test --locked --workspace --lib -q
printf '\n== checked in %d s\n' $((SECONDS - began))
