# Sourced by compat/run: starts and stops the one server that a suite is pointed at.
#
# Ours and Apache's get the same zoo.cfg and the same properties, and ours is started through java-front, so
# that a suite's result differs by the server alone.

server_pid='' server_address='' server_log='' server_dir='' server_ensemble=''

# Short ticks and container checks keep the suites short; the upper session limit stays generous, because a
# busy machine may hold a client up for seconds.
server_settings=(
  tickTime=500
  initLimit=20
  syncLimit=10
  minSessionTimeout=1000
  maxSessionTimeout=60000
  maxClientCnxns=0
  '4lw.commands.whitelist=*'
  extendedTypesEnabled=true
  reconfigEnabled=true
)
# superDigest is the user super with the password test.
server_properties=(
  -Dznode.container.checkIntervalMs=500
  -Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=
)

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    listens "$port" || break
  done
  echo "$port"
}

# True when something listens; every client here retries until it has a session.
listens() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_server menagerie|apache|HOST:PORT FOLDER [COUNT]
start_server() {
  local against=$1 port deadline
  server_pid='' server_log='' server_ensemble=''
  if [[ $against == *:* ]]; then
    server_address=$against
    return 0
  fi
  if ((${3:-1} > 1)); then
    start_ensemble "$against" "$2"
    return
  fi
  port=$(free_port)
  server_address=127.0.0.1:$port
  server_dir=$(mktemp -d "$2/server.XXXXXX")
  server_log=$server_dir/server.log
  case $against in
    apache)
      server_log=$server_dir/oracle.log
      server_pid=$(ORACLE_JVM_FLAGS='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC' "$REPOSITORY/compat/oracle/run.sh" start \
        --port "$port" --dir "$server_dir" --cfg "${server_settings[@]}" "${server_properties[@]}")
      return
      ;;
    menagerie) ;;
    *)
      echo "compat/run: --against $against is not menagerie, apache or HOST:PORT" >&2
      exit 2
      ;;
  esac
  mkdir -p "$server_dir/data"
  printf '%s\n' "clientPort=$port" clientPortAddress=127.0.0.1 "dataDir=$server_dir/data" admin.enableServer=false \
    "${server_settings[@]}" >"$server_dir/zoo.cfg"
  nohup "$REPOSITORY/compat/java-front/java" "${server_properties[@]}" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$server_dir/zoo.cfg" >"$server_log" 2>&1 </dev/null &
  server_pid=$!
  deadline=$((SECONDS + 60))
  until listens "$port"; do
    if ! kill -0 "$server_pid" 2>/dev/null || ((SECONDS >= deadline)); then
      tail -n 20 "$server_log" >&2
      stop_server
      return 1
    fi
    sleep 0.1
  done
}

# An ensemble of three; the suite gets the address of a follower, so that its writes are forwarded.
start_ensemble() {
  local leader addresses
  server_ensemble=$(mktemp -d "$2/ensemble.XXXXXX")
  server_log="$server_ensemble/*/log"
  ensemble_tool=$REPOSITORY/compat/support/ensemble
  "$ensemble_tool" "$server_ensemble" create "$1" && leader=$("$ensemble_tool" "$server_ensemble" leader) || {
    "$ensemble_tool" "$server_ensemble" end
    return 1
  }
  IFS=, read -r -a addresses <"$server_ensemble/addresses"
  server_address=${addresses[leader % 3]}
}

# Stops what start_server started, and removes its data. Our server must still be alive then, and must stop
# when it is asked to.
stop_server() {
  local result=0 deadline=$((SECONDS + 30)) member
  if [[ -n $server_ensemble ]]; then
    for member in 1 2 3; do
      "$ensemble_tool" "$server_ensemble" stop "$member" || {
        echo "FAIL server $member had ended before the suite did, or does not stop; see $server_ensemble/$member/log" >&2
        result=1
      }
    done
    "$ensemble_tool" "$server_ensemble" end
    server_ensemble=''
    return $result
  fi
  [[ -n $server_pid ]] || return 0
  if ! kill "$server_pid" 2>/dev/null; then
    echo "FAIL the server ended before the suite did; see $server_log" >&2
    result=1
  fi
  while kill -0 "$server_pid" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      echo "FAIL the server does not stop at SIGTERM; see $server_log" >&2
      kill -9 "$server_pid"
      result=1
      break
    fi
    sleep 0.05
  done
  server_pid=''
  rm -rf "$server_dir/data"
  return $result
}
