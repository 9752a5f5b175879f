#!/usr/bin/env bash
# A story from an empty folder to the audit, on a real Kafka and a simulated vendor: `make demo`.
#
#   STORY=winback|churn|upgrade|all deploy/demo/demo.sh
#                                   plays it and cleans up (the default is winback); KEEP=1 leaves one story running;
#                                   KAFKA=embedded lets `tailwater run --embedded` start the broker, KAFKA=real (the
#                                   default) starts one beside it
#   deploy/demo/demo.sh stop <dir>  ends what KEEP=1 left
#
# Everything that is shown is done by the product's own commands, each printed before it runs, on a copy of
# deploy/examples/<story>. A number that is not what the story says ends the demo with exit code 1. The stories
# themselves are in <story>.sh beside this file.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=deploy/demo/stage.sh
. "$root/deploy/demo/stage.sh"

if [ "${1:-}" = stop ]; then
  [ $# -eq 2 ] && [ -f "$2/.tailwater-demo" ] || { echo "usage: deploy/demo/demo.sh stop <dir>, a folder that KEEP=1 left" >&2; exit 2; }
  dismantle "$(cd "$2" && pwd)"
  rm -rf "$2"
  exit 0
fi
[ $# -eq 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
case "${KAFKA:=real}" in embedded | real) ;; *) echo "demo: KAFKA is embedded or real, not $KAFKA" >&2; exit 2 ;; esac
case "${STORY:=winback}" in
  winback | churn | upgrade) stories=("$STORY") ;;
  all) stories=(winback churn upgrade) ;;
  *) echo "demo: STORY is winback, churn, upgrade or all, not $STORY" >&2; exit 2 ;;
esac
[ "$STORY" != all ] || [ -z "${KEEP:-}" ] || { echo "demo: KEEP=1 leaves one story running; choose one with STORY" >&2; exit 2; }

chapter "Build (the first time takes several minutes)"
build_binary
for story in "${stories[@]}"; do
  # shellcheck source=/dev/null
  . "$root/deploy/demo/$story.sh"
  [ "$STORY" != all ] || printf '\n%s===== %s =====%s\n' "$bold" "$story" "$plain"
  open_stage
  play
  close_stage
done
[ "$STORY" != all ] || printf '\n ✓ %d stories ended as they should\n' "${#stories[@]}"
where_to_look
