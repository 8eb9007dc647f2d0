# Sourced: finds a Python that serves, since the python3 that stands first on the path (conda, pyenv) may lack modules.

# find_python MODULE...: prints the first of the path's python3, then of Debian's, that is 3.11 or newer, as Debian 12's
# is, and has the modules. Fails where none does.
find_python() {
  local python wanted="import sys$(printf ', %s' "$@"); sys.exit(sys.version_info < (3, 11))"
  while read -r python; do
    if "$python" -c "$wanted" </dev/null >/dev/null 2>&1; then echo "$python"; return; fi
  done < <(type -aP python3; echo /usr/bin/python3)
  return 1
}
