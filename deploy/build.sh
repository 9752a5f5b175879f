#!/usr/bin/env bash
# Builds the program for somebody who waits for it: says every quarter of a minute how far the build is and about how long it still
# takes, and prints the path of the binary as its last line. Everything else goes to stderr.
#
#   deploy/build.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
every_seconds=15

# What a build consists of, as nearly as can be told beforehand: a crate that has a build script or is built for the compiler and for
# the program counts twice or more.
crates=$(cargo tree --locked -p tailwater -e normal,build --prefix none 2>/dev/null | sed 's/ (\*)$//' | sort -u | wc -l)
total=$((crates * 5 / 4 + 1))

work=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cargo build --locked --workspace --bin tailwater --message-format=json-render-diagnostics --quiet >"$work/artifacts" &
cargo=$!

started=$SECONDS reported=$SECONDS
while kill -0 "$cargo" 2>/dev/null; do
  sleep 0.2
  [ $((SECONDS - reported)) -ge "$every_seconds" ] || continue
  reported=$SECONDS
  built=$(grep -c '"reason":"compiler-artifact".*"fresh":false' "$work/artifacts" || true)
  fresh=$(grep -c '"reason":"compiler-artifact".*"fresh":true' "$work/artifacts" || true)
  spent=$((SECONDS - started)) left=$((total - fresh - built))
  if [ "$built" -ge 10 ] && [ "$left" -gt 0 ]; then
    minutes=$(((spent * left / built + 59) / 60))
    printf 'build: %d of about %d crates, %d s; about %d min left\n' $((built + fresh)) "$total" "$spent" "$minutes" >&2
  else
    printf 'build: %d crates, %d s\n' $((built + fresh)) "$spent" >&2
  fi
done
wait "$cargo"
made=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/artifacts" | grep '/tailwater$' | tail -n 1)
[ -x "$made" ] || { echo "build: cargo built no binary" >&2; exit 1; }
[ $((SECONDS - started)) -lt "$every_seconds" ] || printf 'build: done in %d s\n' $((SECONDS - started)) >&2
printf '%s\n' "$made"
