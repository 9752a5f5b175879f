# The stage on which deploy/demo/demo.sh plays: starting and ending processes, waiting, printing. Sourced, not run.
# shellcheck shell=bash disable=SC2154
# `root` and `list` are set by whoever sources this file.

wait_seconds_max=180

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

chapter() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }

# Prints a command as a person would type it, and runs it.
shown() {
  print_command "$@"
  "$@"
}
print_command() {
  local word text=''
  for word in "$@"; do
    case "$word" in '&') ;; *[!A-Za-z0-9_./:=@%+,-]*) word="'$word'" ;; esac
    text+=" $word"
  done
  printf '%s$%s%s\n' "$bold" "$text" "$plain"
}

stop_story() {
  printf '\ndemo: %s\n' "$*" >&2
  [ ! -f "${stage:-}/tailwater.log" ] || { printf 'demo: the end of the log:\n' >&2; tail -n 20 "$stage/tailwater.log" >&2; }
  exit 1
}

# Builds the binary, with progress, and puts it first on the path.
build_binary() {
  local made
  made=$("$root/deploy/build.sh") || stop_story "the build failed"
  PATH="$(dirname "$made"):$PATH"
  export PATH
}

open_stage() {
  stage=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-demo.XXXXXX")
  : >"$stage/.tailwater-demo"
  began=$SECONDS
  finished=''
  trap leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # Ports of its own, so that nothing else on this machine is disturbed.
  admin_port=$(free_port) vendor_port=$(free_port)
  vendor="http://127.0.0.1:$vendor_port"
  # The key that the simulator accepts; it opens nothing.
  export KLAVIYO_API_KEY=pk_simulator_0000000000000000000000
  export KLAVIYO_BASE_URL=$vendor
  export TAILWATER_ADMIN_LISTEN=127.0.0.1:$admin_port
  # Where the embedded broker listens; one that is started beside Tailwater says itself where it is.
  export KAFKA_BROKERS=127.0.0.1:$(free_port)
}

free_port() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return 0; fi
  done
  stop_story "no free port found"
}

# Ends what runs in a stage's folder, in the order in which nobody misses anybody.
dismantle() {
  local name pid
  for name in tailwater simulator; do
    [ -f "$1/$name.pid" ] || continue
    pid=$(cat "$1/$name.pid")
    # A pid is used again after a while: it must still be ours.
    ps -o args= -p "$pid" 2>/dev/null | grep -q tailwater || continue
    kill -TERM "$pid" 2>/dev/null || continue
    for _ in $(seq 300); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
  "$root/deploy/kafka/kafka.sh" stop "$1/kafka" || true
}

leave() {
  local code=$?
  trap - EXIT INT TERM
  if [ -n "${KEEP:-}" ] && [ -n "$finished" ]; then exit 0; fi
  dismantle "$stage"
  if [ "$code" -eq 0 ] || [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then
    rm -rf "$stage"
  else
    printf 'demo: ended with exit code %d; logs and data are kept in %s\n' "$code" "$stage" >&2
  fi
  exit "$code"
}

# A process group of its own for each: Ctrl-C reaches the demo alone, which ends them in order.
background() {
  local name=$1
  shift
  print_command "$@" "&"
  set -m
  nohup "$@" >"$stage/$name.log" 2>&1 </dev/null &
  echo $! >"$stage/$name.pid"
  set +m
}

alive() {
  kill -0 "$(cat "$stage/$1.pid")" 2>/dev/null || { tail -n 20 "$stage/$1.log" >&2; stop_story "$1 has ended unexpectedly; its last words are above"; }
}

start_kafka() {
  local line
  print_command deploy/kafka/kafka.sh start "$stage/kafka"
  line=$("$root/deploy/kafka/kafka.sh" start "$stage/kafka")
  echo "$line"
  export KAFKA_BROKERS=${line#bootstrap=}
}

start_simulator() {
  background simulator tailwater simulate klaviyo --listen "127.0.0.1:$vendor_port" "$@"
  await "Klaviyo's simulator listens" curl -fsS -o /dev/null "$vendor/_simulator/"
}

start_tailwater() {
  background tailwater tailwater run "$@"
  await "Tailwater is ready" curl -fsS -o /dev/null "http://127.0.0.1:$admin_port/readyz"
}

# await TEXT COMMAND…: until the command succeeds, with the audit's numbers as progress.
await() {
  local text=$1 deadline=$((SECONDS + wait_seconds_max)) progress='' shown_progress=''
  shift
  while ! "$@" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || stop_story "waited $wait_seconds_max s in vain until $text"
    [ ! -f "$stage/simulator.pid" ] || alive simulator
    [ ! -f "$stage/tailwater.pid" ] || alive tailwater
    if [ -f "$stage/tailwater.pid" ]; then
      progress=$(counts)
      if [ -n "$progress" ] && [ "$progress" != "$shown_progress" ]; then
        printf '   … %s\n' "$progress"
        shown_progress=$progress
      fi
    fi
    sleep 0.3
  done
  printf ' ✓ %s\n' "$text"
}

# The audit's numbers for scores at Klaviyo, as `name number` pairs.
counts() {
  tailwater audit --json 2>/dev/null | perl -MJSON::PP -0777 -ne '
    sub find { my $v = shift;
      if (ref $v eq "HASH") {
        return $v if ($v->{source} // "") eq "ltv_scores" && ($v->{destination} // "") eq "klaviyo";
        for (values %$v) { my $f = find($_); return $f if $f } }
      if (ref $v eq "ARRAY") { for (@$v) { my $f = find($_); return $f if $f } }
      return undef }
    sub total { my $v = shift; ref $v eq "HASH" ? do { my $n = 0; $n += total($_) for values %$v; $n } : ref $v eq "ARRAY" ? scalar @$v : $v // 0 }
    my $row = find(decode_json($_)) or exit;
    print join " ", map { "$_ " . total($row->{$_}) } qw(in delivered skipped dead_lettered held in_flight unaccounted)' || true
}

# counted NAME NUMBER…: does the audit say so?
counted() {
  local now
  now=" $(counts) "
  while [ $# -gt 0 ]; do
    case "$now" in *" $1 $2 "*) ;; *) return 1 ;; esac
    shift 2
  done
}

first_profile() {
  print_command curl -s "$vendor/_simulator/requests?method=POST&path=/api/profile&limit=1"
  curl -fsS "$vendor/_simulator/requests?method=POST&path=/api/profile&limit=1" | perl -MJSON::PP -0777 -ne '
    my $body = decode_json($_)->{requests}[0]{body}{data};
    my $profiles = $body->{attributes}{profiles}{data};
    print JSON::PP->new->pretty->canonical->encode($profiles ? $profiles->[0] : $body)'
}

list_members() {
  curl -fsS "$vendor/_simulator/lists/$list" | perl -MJSON::PP -0777 -ne '
    sub emails { my $v = shift; if (ref $v eq "HASH") { print "$v->{email}\n" if defined $v->{email} && !ref $v->{email}; emails($_) for values %$v }
      elsif (ref $v eq "ARRAY") { emails($_) for @$v } }
    emails(decode_json($_))' | sort -u
}

list_has() { [ "$(list_members | wc -l)" -eq "$1" ]; }

# Who Spark says belongs on the list, up to a version of the table.
expected_list() {
  perl -MJSON::PP -ne 'BEGIN { $max = shift } my $row = decode_json($_); print "$row->{email}\n" if $row->{since_version} <= $max' \
    "$1" "$root/deploy/examples/winback/lake/expected/winback_list.ndjson" | sort -u
}
expected_list_v1() { expected_list 1; }
expected_list_v2() { expected_list 2; }

held_against() {
  diff <(list_members) <("$1") >/dev/null || stop_story "the winback list is not the one that Spark computes from the tables"
  printf ' ✓ it is the list that Spark computes from the tables\n'
}

on_list() { list_members | sed -n "${1}p"; }

mark_log() { log_mark=$(wc -c <"$stage/tailwater.log"); }
since_mark() { tail -c "+$((log_mark + 1))" "$stage/tailwater.log"; }
logged() { since_mark | grep -q "$1"; }
show_log() { since_mark | grep "$1" | head -n 5; }

close_stage() {
  finished=yes
  printf '\n ✓ the story ended as it should, %d s after the build\n' $((SECONDS - began))
  if [ -n "${KEEP:-}" ]; then
    cat <<END

Everything runs on. In another terminal:
  cd $stage/winback
  export PATH='$(dirname "$(command -v tailwater)")':"\$PATH" KAFKA_BROKERS=$KAFKA_BROKERS KLAVIYO_API_KEY=$KLAVIYO_API_KEY KLAVIYO_BASE_URL=$KLAVIYO_BASE_URL TAILWATER_ADMIN_LISTEN=127.0.0.1:$admin_port
  tailwater audit
  curl $vendor/_simulator/                     what arrived at the vendor
  curl http://127.0.0.1:$admin_port/metrics
  less $stage/tailwater.log

It ends with
  $root/deploy/demo/demo.sh stop $stage
END
  else
    cat <<END

Where to look next:
  make demo KEEP=1                 the same, and it stays up for you to look around
  deploy/examples/winback          the example: read its README, change the transform, make it yours
  tailwater init --template winback my-project
  README.md, docs/                 how it works, and a page for each error code
END
  fi
}
