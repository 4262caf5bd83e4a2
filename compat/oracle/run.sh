#!/usr/bin/env bash
# Starts Apache ZooKeeper 3.9.5, the oracle that our tests and benches compare against. See README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${ORACLE_HOME:-$(cd "$here/../.." && pwd)/target/oracle}
lib=$home/lib

usage() {
  cat >&2 <<'TEXT'
usage: run.sh fetch
       run.sh classpath
       run.sh start --port PORT --dir DIR [--cfg KEY=VALUE ...] [-Dproperty=value ...]

start prints the server's pid once it serves; `kill PID` stops it. Its log is DIR/oracle.log.
TEXT
  exit 2
}

# Downloads once; a changed pom.xml downloads anew. Parallel callers wait for the first.
fetch() {
  local wanted
  wanted=$(sha1sum <"$here/pom.xml")
  [[ -f $lib/.complete && $(<"$lib/.complete") == "$wanted" ]] && return
  mkdir -p "$home"
  exec 9>"$home/lock"
  flock 9
  [[ -f $lib/.complete && $(<"$lib/.complete") == "$wanted" ]] && return
  rm -rf "$lib"
  mkdir -p "$lib"
  if ! mvn -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$lib" >"$home/fetch.log" 2>&1; then
    echo "run.sh: could not fetch ZooKeeper from Maven; the end of $home/fetch.log:" >&2
    tail -n 20 "$home/fetch.log" >&2
    exit 1
  fi
  echo "$wanted" >"$lib/.complete"
  exec 9>&-
}

# True when something on the port answers the four-letter word srvr as a serving server does.
serves() {
  local answer
  answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf srvr >&3 && timeout 5 cat <&3) 2>/dev/null) || return 1
  [[ -n $answer && $answer != *"not currently serving"* ]]
}

start() {
  local port='' dir='' settings=() properties=()
  while (($#)); do
    case $1 in
      --port) port=${2:?}; shift 2 ;;
      --dir) dir=${2:?}; shift 2 ;;
      --cfg) shift ;;
      -D*) properties+=("$1"); shift ;;
      *=*) settings+=("$1"); shift ;;
      *) usage ;;
    esac
  done
  [[ -n $port && -n $dir ]] || usage
  fetch
  if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "run.sh: something listens on port $port already" >&2
    exit 1
  fi

  mkdir -p "$dir/data"
  dir=$(cd "$dir" && pwd)
  {
    printf '%s\n' "clientPort=$port" clientPortAddress=127.0.0.1 "dataDir=$dir/data" tickTime=2000 \
      admin.enableServer=false
    # A key given again replaces the line above: the last one counts in a Java properties file.
    ((${#settings[@]} == 0)) || printf '%s\n' "${settings[@]}"
  } >"$dir/zoo.cfg"

  # ORACLE_JVM_FLAGS is split at spaces on purpose.
  # shellcheck disable=SC2086
  nohup java "-Xmx${ORACLE_HEAP:-512m}" ${ORACLE_JVM_FLAGS:-} -Dzookeeper.jmx.log4j.disable=true \
    "-Doracle.log.level=${ORACLE_LOG_LEVEL:-INFO}" "${properties[@]}" -cp "$here:$lib/*" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zoo.cfg" >"$dir/oracle.log" 2>&1 </dev/null &
  local pid=$!
  local deadline=$((SECONDS + ${ORACLE_START_TIMEOUT_S:-60}))
  until serves "$port"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      echo "run.sh: ZooKeeper ended while starting; the end of $dir/oracle.log:" >&2
      tail -n 20 "$dir/oracle.log" >&2
      exit 1
    fi
    if ((SECONDS >= deadline)); then
      echo "run.sh: ZooKeeper does not serve on port $port yet; giving up. Log: $dir/oracle.log" >&2
      kill "$pid"
      exit 1
    fi
    sleep 0.1
  done
  echo "$pid"
}

[[ $# -ge 1 ]] || usage
command=$1
shift
case $command in
  fetch) fetch ;;
  classpath) fetch; echo "$here:$lib/*" ;;
  start) start "$@" ;;
  *) usage ;;
esac
