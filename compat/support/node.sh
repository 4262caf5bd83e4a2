# Sourced by the Node suites: the packages of a folder's lock file, installed once below target/compat.

# install_packages FOLDER TARGET: a changed lock file is installed anew.
install_packages() {
  local folder=$1 target=$2
  cmp -s "$folder/package-lock.json" "$target/.installed" && return
  rm -rf "$target"
  mkdir -p "$target"
  cp "$folder"/package{,-lock}.json "$target/"
  (cd "$target" && npm ci --no-audit --no-fund --foreground-scripts) >"$target.log" 2>&1 || return 1
  cp "$folder/package-lock.json" "$target/.installed"
}
