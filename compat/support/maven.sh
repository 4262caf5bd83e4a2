# Sourced by the Java suites: the jars of a folder's pom.xml, copied once below target/compat.

# fetch_jars POM FOLDER: a changed pom.xml is fetched anew.
fetch_jars() {
  local pom=$1 folder=$2
  cmp -s "$pom" "$folder/.fetched" && return
  rm -rf "$folder"
  mkdir -p "$folder"
  if ! mvn -B -q -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder" >"$folder.log" 2>&1; then
    tail -n 20 "$folder.log" >&2
    return 1
  fi
  cp "$pom" "$folder/.fetched"
}
