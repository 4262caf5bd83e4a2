# Sourced by the suites in Python: a virtual environment with pinned packages, made once below target/compat.

# install_requirements REQUIREMENTS VENV: a changed file of requirements installs anew.
install_requirements() {
  local requirements=$1 venv=$2
  cmp -s "$requirements" "$venv/installed.txt" && return
  rm -rf "$venv"
  mkdir -p "${venv%/*}"
  python3 -m venv "$venv" || return 1
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" || return 1
  cp "$requirements" "$venv/installed.txt"
}

# Of kazoo's own suite; whoever else wants kazoo alone takes it too.
kazoo_venv=$COMPAT_HOME/kazoo/venv
install_kazoo() { install_requirements "$REPOSITORY/compat/kazoo/requirements.txt" "$kazoo_venv"; }
