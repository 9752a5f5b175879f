# The stage on which deploy/demo/demo.sh plays: starting and ending processes, waiting, printing. Sourced, not run.
# shellcheck shell=bash disable=SC2154
# `root`, `story` and `flow` (the source whose numbers are shown while something is awaited) are set by whoever sources this file.

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
  export TAILWATER_ADMIN_LISTEN=127.0.0.1:$admin_port
  # Where the embedded broker listens; one that is started beside Tailwater says itself where it is.
  export KAFKA_BROKERS=127.0.0.1:$(free_port)
}

# vendor_is KIND NAME: what the story's destination is called, and the keys that its simulator accepts; they open nothing.
vendor_is() {
  vendor_kind=$1 vendor_name=$2
  case "$vendor_kind" in
    klaviyo) keep_for_later KLAVIYO_API_KEY=pk_simulator_0000000000000000000000 KLAVIYO_BASE_URL="$vendor" ;;
    iterable) keep_for_later ITERABLE_API_KEY=iterable_simulator_00000000000000 ITERABLE_BASE_URL="$vendor" ;;
    customerio) keep_for_later CUSTOMERIO_SECRET_KEY=sk_simulator_0000000000000000000 CUSTOMERIO_BASE_URL="$vendor" ;;
  esac
}

# Exports the variables, and names them when KEEP=1 leaves everything running.
keep_for_later() {
  vendor_environment="$*"
  local pair
  for pair in "$@"; do export "${pair?}"; done
}

# Copies the story's example, as anybody would, and goes there.
lay_out() {
  shown tailwater init --template "$story" "$stage/$story"
  cd "$stage/$story"
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
  background simulator tailwater simulate "$vendor_kind" --listen "127.0.0.1:$vendor_port" "$@"
  await "$vendor_name's simulator listens" curl -fsS -o /dev/null "$vendor/_simulator/"
}

# The vendor with these arguments, Kafka and Tailwater.
start_everything() {
  if [ "$KAFKA" = real ]; then
    start_kafka
    start_simulator "$@"
    shown tailwater topics apply
    start_tailwater
  else
    start_simulator "$@"
    start_tailwater --embedded
  fi
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
      progress=$(counts "$flow")
      if [ -n "$progress" ] && [ "$progress" != "$shown_progress" ]; then
        printf '   … %s\n' "$progress"
        shown_progress=$progress
      fi
    fi
    sleep 0.3
  done
  printf ' ✓ %s\n' "$text"
}

# The audit's numbers for a source at the story's vendor, as `name number` pairs.
counts() {
  tailwater audit --json 2>/dev/null | perl -MJSON::PP -0777 -ne '
    BEGIN { ($source, $destination) = splice @ARGV, 0, 2 }
    sub find { my $v = shift;
      if (ref $v eq "HASH") {
        return $v if ($v->{source} // "") eq $source && ($v->{destination} // "") eq $destination;
        for (values %$v) { my $f = find($_); return $f if $f } }
      if (ref $v eq "ARRAY") { for (@$v) { my $f = find($_); return $f if $f } }
      return undef }
    sub total { my $v = shift; ref $v eq "HASH" ? do { my $n = 0; $n += total($_) for values %$v; $n } : ref $v eq "ARRAY" ? scalar @$v : $v // 0 }
    my $row = find(decode_json($_)) or exit;
    print join " ", map { "$_ " . total($row->{$_}) } qw(in delivered skipped dead_lettered held in_flight unaccounted)' \
    "$1" "$vendor_kind" || true
}

# counted SOURCE NAME NUMBER…: does the audit say so?
counted() {
  local now
  now=" $(counts "$1") "
  shift
  while [ $# -gt 0 ]; do
    case "$now" in *" $1 $2 "*) ;; *) return 1 ;; esac
    shift 2
  done
}

# first_request METHOD PATH PART: the first request of this kind, and of its body the part that an expression takes.
first_request() {
  local url="$vendor/_simulator/requests?method=$1&path=$2&limit=1"
  print_command curl -s "$url"
  curl -fsS "$url" | perl -MJSON::PP -0777 -ne '
    BEGIN { $part = eval "sub { " . shift(@ARGV) . " }" }
    print JSON::PP->new->pretty->canonical->encode($part->(decode_json($_)->{requests}[0]{body}))' "$3"
}

list_members() {
  curl -fsS "$vendor/_simulator/lists/$1" | perl -MJSON::PP -0777 -ne '
    sub emails { my $v = shift; if (ref $v eq "HASH") { print "$v->{email}\n" if defined $v->{email} && !ref $v->{email}; emails($_) for values %$v }
      elsif (ref $v eq "ARRAY") { emails($_) for @$v } }
    emails(decode_json($_))' | sort -u
}

# list_has LIST NUMBER
list_has() { [ "$(list_members "$1" | wc -l)" -eq "$2" ]; }

# emails_of FILE CONDITION: the addresses in one of Spark's answers, in the rows for which the expression is true.
emails_of() {
  perl -MJSON::PP -ne 'BEGIN { $wanted = eval "sub { " . shift(@ARGV) . " }" } $_ = decode_json($_); print "$_->{email}\n" if $wanted->()' \
    "$2" "$root/deploy/examples/$story/lake/expected/$1" | sort -u
}

# held_against LIST COMMAND: is the list what the command prints?
held_against() {
  diff <(list_members "$1") <("$2") >/dev/null || stop_story "the list is not the one that Spark computes from the tables"
  printf ' ✓ it is the list that Spark computes from the tables\n'
}

mark_log() { log_mark=$(wc -c <"$stage/tailwater.log"); }
since_mark() { tail -c "+$((log_mark + 1))" "$stage/tailwater.log"; }
logged() { since_mark | grep -q "$1"; }
show_log() { since_mark | grep "$1" | head -n 5; }

# Ends a story that went as it should.
close_stage() {
  finished=yes
  printf '\n ✓ the story ended as it should, %d s after the build\n' $((SECONDS - began))
  [ -z "${KEEP:-}" ] || return 0
  cd "$root"
  trap - EXIT
  dismantle "$stage"
  rm -rf "$stage"
}

where_to_look() {
  if [ -n "${KEEP:-}" ]; then
    cat <<END

Everything runs on. In another terminal:
  cd $stage/$story
  export PATH='$(dirname "$(command -v tailwater)")':"\$PATH" KAFKA_BROKERS=$KAFKA_BROKERS $vendor_environment TAILWATER_ADMIN_LISTEN=127.0.0.1:$admin_port
  tailwater audit
  $vendor/_simulator/     what arrived at the vendor, in a browser or with curl
  curl http://127.0.0.1:$admin_port/metrics
  less $stage/tailwater.log

It ends with
  $root/deploy/demo/demo.sh stop $stage
END
  else
    cat <<END

Where to look next:
  make demo KEEP=1 STORY=…         one story, and it stays up for you to look around
  make demo STORY=all              winback at Klaviyo, churn at Iterable, upgrade at Customer.io
  deploy/examples/                 the examples: read a README, change the transform, make it yours
  tailwater init --template $story my-project
  README.md, docs/                 how it works, and a page for each error code
END
  fi
}
