# Sourced by the suites that use kazoo: its virtual environment, made once below target/compat.

kazoo_venv=$COMPAT_HOME/kazoo/venv

# Pinned versions; a changed requirements.txt installs anew.
install_kazoo() {
  local requirements=$REPOSITORY/compat/kazoo/requirements.txt
  cmp -s "$requirements" "$kazoo_venv/installed.txt" && return
  rm -rf "$kazoo_venv"
  mkdir -p "${kazoo_venv%/*}"
  python3 -m venv "$kazoo_venv" || return 1
  "$kazoo_venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" || return 1
  cp "$requirements" "$kazoo_venv/installed.txt"
}
