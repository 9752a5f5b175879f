#!/usr/bin/env bash
# A real Apache Kafka for tests and for the demo: one KRaft node on localhost, in a folder of its own.
#
#   kafka.sh fetch                          download the broker once, into the cache
#   kafka.sh start <dir> [port] [--while P] [--fast-cleanup]
#                                           format and start a broker whose data, log and pid live in <dir>; prints bootstrap=HOST:PORT
#   kafka.sh stop <dir>                     stop it; the folder stays
#   kafka.sh status <dir>                   prints bootstrap=… if it answers; exit code 1 if it does not
#   kafka.sh serve --data <dir> --listen HOST:PORT
#                                           run one in the foreground, until standard input ends or SIGTERM comes
#
# With --while, the broker ends when process P does: a test run that was killed leaves nothing behind.
# With --fast-cleanup, compaction and retention happen within a second or two: for tests of them.
# Not for production: nothing is replicated.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
home="${TAILWATER_CACHE:-$HOME/.cache/tailwater}/kafka-$version"

# Ports are drawn below the range from which Linux takes those of outgoing connections (32768 and up).
port_min=20000
port_count=12000
start_attempts_max=5
answer_seconds_max=60

say() { printf 'kafka: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

usage() { sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

require_java() {
  command -v java >/dev/null 2>&1 || die "java is missing; Kafka $version needs Java 17 or later: run deploy/setup.sh, or install it (Debian and Ubuntu: apt-get install openjdk-17-jre-headless)"
}

fetch() {
  if [ -f "$home/libs/kafka_2.13-$version.jar" ]; then return 0; fi
  require_java
  command -v mvn >/dev/null 2>&1 || die "mvn (Maven) is missing, and Kafka is fetched with it: run deploy/setup.sh, or install it (Debian and Ubuntu: apt-get install maven)"
  mkdir -p "$(dirname "$home")"
  local staging
  staging=$(mktemp -d "$(dirname "$home")/.kafka-$version.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now, not of later
  trap "rm -rf '$staging'" EXIT
  say "fetching Apache Kafka $version from Maven Central (about 43 MB, once) …"
  if ! mvn --batch-mode --no-transfer-progress --quiet -f "$here/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$staging/libs" >"$staging/fetch.log" 2>&1; then
    cat "$staging/fetch.log" >&2
    die "Maven could not fetch Kafka $version; its own words are above (a proxy or mirror belongs into ~/.m2/settings.xml)"
  fi
  [ -f "$staging/libs/kafka_2.13-$version.jar" ] || die "Maven ended without an error but kafka_2.13-$version.jar is not there"
  rm -f "$staging/fetch.log"
  chmod 755 "$staging"
  # The rename makes it whole at once. If another run was faster its copy is as good as ours.
  if [ ! -e "$home" ]; then mv "$staging" "$home" 2>/dev/null || [ -d "$home" ]; fi
  rm -rf "$staging"
  trap - EXIT
  say "Kafka $version is in $home ($(du -sh "$home" | cut -f1))"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  for _ in $(seq 50); do
    port=$((port_min + (RANDOM * 32768 + RANDOM) % port_count))
    if port_is_free "$port"; then echo "$port"; return 0; fi
  done
  die "no free port found between $port_min and $((port_min + port_count))"
}

# Asks for the cluster's metadata (Metadata request, version 1, no topics) and wants a broker in the answer: a broker
# that still catches up or is fenced does not list itself, so an open port alone would be too early.
ask() {
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf '\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00' >&3
  local answer
  read -r -a answer <<<"$(head -c 12 <&3 | od -An -v -t u1 | tr -s ' \n' ' ')"
  exec 3>&-
  # size (4), correlation id (4), number of brokers (4): the last byte is the number.
  [ ${#answer[@]} -eq 12 ] && [ "${answer[11]}" -ge 1 ]
}

answers() {
  if command -v timeout >/dev/null 2>&1; then
    timeout 5 bash "${BASH_SOURCE[0]}" __ask "$1" >/dev/null 2>&1
  else
    bash "${BASH_SOURCE[0]}" __ask "$1" >/dev/null 2>&1
  fi
}

# Is the process of that pid our broker? A pid is used again after a while, so its command line must name the folder.
is_broker() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null && ps -o args= -p "$1" 2>/dev/null | grep -qF -- "$2/server.properties"; }

write_properties() {
  local dir=$1 port=$2 controller=$3
  {
    cat "$here/server.properties"
    printf '\nlisteners=PLAINTEXT://127.0.0.1:%s,CONTROLLER://127.0.0.1:%s\n' "$port" "$controller"
    printf 'advertised.listeners=PLAINTEXT://127.0.0.1:%s\n' "$port"
    printf 'controller.quorum.bootstrap.servers=127.0.0.1:%s\n' "$controller"
    printf 'log.dirs=%s/data\n' "$dir"
    [ -z "${fast_cleanup:-}" ] || cat "$here/fast-cleanup.properties"
  } >"$dir/server.properties"
}

# Gives a new folder its cluster id.
format() {
  [ ! -f "$1/data/meta.properties" ] || return 0
  local id
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  # A cluster id that begins with a dash would be taken for an option.
  id="T${id#?}"
  run_java kafka.tools.StorageTool format --standalone -t "$id" -c "$1/server.properties" >"$1/format.log" 2>&1 ||
    { cat "$1/format.log" >&2; die "the broker's folder could not be formatted"; }
}

start() {
  local dir=$1 wanted=$2 keeper=$3
  require_java
  fetch
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if [ -f "$dir/pid" ] && is_broker "$(cat "$dir/pid")" "$dir"; then
    die "a broker runs in $dir already: $(cat "$dir/bootstrap" 2>/dev/null)"
  fi
  rm -f "$dir/bootstrap"
  local port controller pid
  local known_controller=''
  if [ -f "$dir/data/meta.properties" ]; then
    # The folder was used before: the same data at the same ports, as after a restart in production.
    known_controller=$(sed -n 's/^controller.quorum.bootstrap.servers=127.0.0.1://p' "$dir/server.properties")
    wanted=${wanted:-$(sed -n 's/^advertised.listeners=PLAINTEXT:\/\/127.0.0.1://p' "$dir/server.properties")}
  fi
  for _ in $(seq "$start_attempts_max"); do
    if [ -n "$wanted" ]; then
      port=$wanted
      port_is_free "$port" || die "port $port is taken"
    else
      port=$(free_port)
    fi
    controller=${known_controller:-$(free_port)}
    [ "$controller" != "$port" ] || continue
    write_properties "$dir" "$port" "$controller"
    format "$dir"
    # A process group of its own: Ctrl-C in the terminal reaches whoever started us, and that one stops the broker in order.
    set -m
    nohup java -Xms256m -Xmx512m -XX:+UseSerialGC "-Dlog4j2.configurationFile=$here/log4j2.properties" \
      -cp "$home/libs/*" kafka.Kafka "$dir/server.properties" >"$dir/broker.log" 2>&1 </dev/null 3>&- &
    pid=$!
    set +m
    echo "$pid" >"$dir/pid"
    local deadline=$((SECONDS + answer_seconds_max))
    while [ "$SECONDS" -lt "$deadline" ]; do
      if answers "$port"; then
        echo "bootstrap=127.0.0.1:$port" >"$dir/bootstrap"
        if [ -n "$keeper" ]; then watch "$keeper" "$dir"; fi
        cat "$dir/bootstrap"
        return 0
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    if kill -0 "$pid" 2>/dev/null; then
      stop "$dir"
      die "the broker did not answer within $answer_seconds_max s; see $dir/broker.log"
    fi
    # It ended: somebody took a port between our look and its bind. Anything else will not get better.
    if [ -n "$wanted" ] || ! grep -q 'Address already in use' "$dir/broker.log"; then
      tail -n 20 "$dir/broker.log" >&2
      die "the broker ended at once; the end of $dir/broker.log is above"
    fi
    # The controller's port is part of what was formatted, and nothing was written yet.
    rm -rf "$dir/data"
  done
  die "no pair of free ports could be held in $start_attempts_max attempts"
}

run_java() { java "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$home/libs/*" "$@"; }

# In the foreground, as a child that cannot outlive its parent: the end of standard input ends the broker in order, however the parent
# went. The log goes to standard error.
serve() {
  local dir=$1 port=$2 controller pid
  require_java
  fetch
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  # A predecessor whose parent was killed needs a moment to end.
  local deadline=$((SECONDS + 20))
  while is_broker "$(cat "$dir/pid" 2>/dev/null)" "$dir"; do
    [ "$SECONDS" -lt "$deadline" ] || die "another broker uses $dir"
    sleep 0.1
  done
  port_is_free "$port" || die "port $port is taken"
  controller=$(sed -n 's/^controller.quorum.bootstrap.servers=127.0.0.1://p' "$dir/server.properties" 2>/dev/null || true)
  write_properties "$dir" "$port" "${controller:-$(free_port)}"
  # A broker that gets little of a busy machine must not be taken for dead by its own controller. The last line of a name counts.
  cat >>"$dir/server.properties" <<'END'
broker.session.timeout.ms=18000
broker.heartbeat.interval.ms=2000
END
  format "$dir"
  exec 4<&0
  # shellcheck disable=SC2086 # Kafka's own variable; its options are words
  java ${KAFKA_HEAP_OPTS:--Xms128m -Xmx512m} -XX:+UseSerialGC "-Dlog4j2.configurationFile=$here/log4j2.properties" \
    -cp "$home/libs/*" kafka.Kafka "$dir/server.properties" >&2 </dev/null 4<&- &
  pid=$!
  echo "$pid" >"$dir/pid"
  # shellcheck disable=SC2064 # the process of now
  trap "kill -TERM $pid 2>/dev/null || true" TERM INT
  bash -c 'cat >/dev/null; kill -TERM "$1"; for _ in $(seq 100); do kill -0 "$1" || exit; sleep 0.1; done; kill -KILL "$1"' \
    _ "$pid" <&4 >/dev/null 2>&1 &
  exec 4<&-
  local keeper=$! code=0
  wait "$pid" || code=$?
  # A signal that was trapped ends `wait` before the broker has ended.
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" || code=$?; done
  # A successor that waited for us may have written its own already.
  if [ "$(cat "$dir/pid" 2>/dev/null)" = "$pid" ]; then rm -f "$dir/pid"; fi
  # It ends by itself where the input has ended; where the broker went first, it still reads.
  kill "$keeper" 2>/dev/null || true
  # 143 is how Java tells that it ended in order after SIGTERM.
  if [ "$code" -eq 143 ]; then return 0; fi
  return "$code"
}

# Stops the broker when the process `keeper` has gone.
watch() {
  local keeper=$1 dir=$2 pid
  pid=$(cat "$dir/pid")
  set -m
  # A broker that was stopped and started again has a watcher of its own: this one must not end the new one.
  nohup bash -c 'while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 1; done
    [ "$(cat "$4/pid" 2>/dev/null)" != "$2" ] || exec bash "$3" stop "$4"' \
    _ "$keeper" "$pid" "$here/kafka.sh" "$dir" >/dev/null 2>&1 </dev/null 3>&- &
  set +m
}

stop() {
  local dir=$1 pid
  [ -f "$dir/pid" ] || return 0
  dir=$(cd "$dir" && pwd)
  pid=$(cat "$dir/pid")
  if is_broker "$pid" "$dir"; then
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
      is_broker "$pid" "$dir" || break
      sleep 0.1
    done
    if is_broker "$pid" "$dir"; then
      say "the broker did not end within 10 s and is killed"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  fi
  rm -f "$dir/pid" "$dir/bootstrap"
}

status() {
  local dir=$1
  [ -f "$dir/bootstrap" ] || die "no broker in $dir"
  dir=$(cd "$dir" && pwd)
  is_broker "$(cat "$dir/pid" 2>/dev/null)" "$dir" || die "the broker in $dir has ended; see $dir/broker.log"
  local line
  line=$(cat "$dir/bootstrap")
  answers "${line##*:}" || die "the broker in $dir runs but does not answer"
  echo "$line"
}

command=${1:-}
[ $# -gt 0 ] && shift
case "$command" in
  fetch) [ $# -eq 0 ] || usage; fetch ;;
  start)
    dir='' port='' keeper=''
    while [ $# -gt 0 ]; do
      case "$1" in
        --while) [ $# -ge 2 ] || usage; keeper=$2; shift 2 ;;
        --fast-cleanup) fast_cleanup=1; shift ;;
        -*) usage ;;
        *) if [ -z "$dir" ]; then dir=$1; elif [ -z "$port" ]; then port=$1; else usage; fi; shift ;;
      esac
    done
    [ -n "$dir" ] || usage
    case "$port$keeper" in *[!0-9]*) usage ;; esac
    start "$dir" "$port" "$keeper"
    ;;
  serve)
    dir='' listen=''
    while [ $# -ge 2 ]; do
      case "$1" in
        --data) dir=$2 ;;
        --listen) listen=$2 ;;
        *) usage ;;
      esac
      shift 2
    done
    [ $# -eq 0 ] && [ -n "$dir" ] && [ -n "$listen" ] || usage
    serve "$dir" "${listen##*:}"
    ;;
  stop) [ $# -eq 1 ] || usage; stop "$1" ;;
  status) [ $# -eq 1 ] || usage; status "$1" ;;
  __ask) ask "$1" ;;
  *) usage ;;
esac
