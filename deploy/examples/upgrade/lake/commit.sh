#!/usr/bin/env bash
# Plays a later commit of the sample lake: copies Spark's own files of it into the table, the log entry last, as Spark does.
#
#   lake/commit.sh signups-v1           240 people sign up for a trial: the row links their browser, email and user id
#   lake/commit.sh signups-v2           30 of them pay, in another browser
#   lake/commit.sh upgrade_scores-v2    the model's next run overwrites the table, with a column renamed
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
# A rename is what makes a commit visible whole or not at all.
cp "$from/_delta_log/$version.json" "$log/.$version.json.tmp"
mv "$log/.$version.json.tmp" "$log/$version.json"
cp "$from/_delta_log/$version.crc" "$log/"
echo "commit: ${commit%-v*} is at version ${commit##*-v}"
