#!/usr/bin/env bash
# The winback story, from an empty folder to the audit, on a real Kafka and a simulated Klaviyo: `make demo`.
#
#   deploy/demo/demo.sh             plays it and cleans up; KEEP=1 leaves everything running; KAFKA=embedded lets
#                                   `tailwater run --embedded` start the broker, KAFKA=real (the default) starts one beside it
#   deploy/demo/demo.sh stop <dir>  ends what KEEP=1 left
#
# Everything that is shown is done by the product's own commands, each printed before it runs, on a copy of
# deploy/examples/winback. A number that is not what the story says ends the demo with exit code 1.
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
[ $# -eq 0 ] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
case "${KAFKA:=real}" in embedded | real) ;; *) echo "demo: KAFKA is embedded or real, not $KAFKA" >&2; exit 2 ;; esac

customers=5000 linked=4900 unlinked=100 changed=12
list=WINBCK on_list_first=289 on_list_last=290

chapter "Build (the first time takes several minutes)"
build_binary
open_stage

chapter "1. A lake of Delta tables, and a configuration for it"
shown tailwater init --template winback "$stage/winback"
cd "$stage/winback"
shown ls -F . lake lake/ltv_scores
note "lake/ltv_scores holds 5,000 customers that an LTV model has scored; lake/orders is empty. Both were written by Spark."
shown tailwater validate

if [ "$KAFKA" = real ]; then
  chapter "2. Kafka, a Klaviyo that keeps the vendor's limits, and Tailwater"
  start_kafka
  start_simulator --list "$list=Winback"
  shown tailwater topics apply
  start_tailwater
else
  chapter "2. A Klaviyo that keeps the vendor's limits, and Tailwater with a Kafka of its own"
  start_simulator --list "$list=Winback"
  start_tailwater --embedded
fi

chapter "3. Scores first, orders later"
note "A score names a customer's id, and Klaviyo needs an email: every row waits for one."
await "$customers rows are held" counted held "$customers"
shown lake/commit.sh orders-v1
note "5,200 orders link all customers but $unlinked to an email. Their rows go on, the others stay held."
await "$linked delivered, $unlinked held" counted delivered "$linked" held "$unlinked"
note "The first profile, as the vendor received it:"
first_profile
await "the winback list has $on_list_first members, all of them at-risk champions" list_has "$on_list_first"
held_against expected_list_v1
somebody=$(on_list 1)
note "What happened to one of them:"
shown tailwater trace "$somebody"

chapter "4. The data science team strikes"
note "The model's next run overwrites the table: ltv_predicted is called ltv_score now, and confidence_interval is new."
mark_log
shown lake/commit.sh ltv_scores-v2
await "the route pauses" logged missing_column
show_log missing_column
counted dead_lettered 0 || stop_story "something was dead-lettered although the route paused"
note "Nothing was dead-lettered. The corrected transform is put in place, and Tailwater reloads it:"
shown cp transforms/after-the-rename/ltv.js transforms/ltv.js
await "$((linked + changed)) delivered, $unlinked held: of 5,000 rewritten rows, $changed really differed" \
  counted delivered "$((linked + changed))" held "$unlinked"
await "the winback list has $on_list_last members" list_has "$on_list_last"
held_against expected_list_v2

chapter "5. What became of everything"
shown tailwater audit
counted unaccounted 0 held "$unlinked" || stop_story "the audit does not add up"
close_stage
