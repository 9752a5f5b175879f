#!/usr/bin/env bash
# Plays a later commit of the sample lake: copies Spark's own files of it into the table, the log entry last, as Spark does.
#
#   lake/commit.sh users-v1           the users arrive: they link 960 people to their email
#   lake/commit.sh churn_scores-v2    the model's second run: scores move across the line, both ways
#   lake/commit.sh churn_scores-v3    the third run overwrites the table: two columns change their type, one is new
set -euo pipefail

lake=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
commit=${1:-}
if [ $# -ne 1 ] || [ ! -d "$lake/later/$commit" ]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
from="$lake/later/$commit"
table="$lake/${commit%-v*}"
version=$(printf '%020d' "${commit##*-v}")
log="$table/_delta_log"

if [ -e "$log/$version.json" ]; then
  echo "commit: ${commit%-v*} has version ${commit##*-v} already" >&2
  exit 1
fi
cp "$from"/*.parquet "$table/"
[ ! -d "$from/_change_data" ] || { mkdir -p "$table/_change_data" && cp "$from/_change_data"/*.parquet "$table/_change_data/"; }
# A rename is what makes a commit visible whole or not at all.
cp "$from/_delta_log/$version.json" "$log/.$version.json.tmp"
mv "$log/.$version.json.tmp" "$log/$version.json"
cp "$from/_delta_log/$version.crc" "$log/"
echo "commit: ${commit%-v*} is at version ${commit##*-v}"
