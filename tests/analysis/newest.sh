#!/usr/bin/env bash
# newest.sh FOLDER: makes FOLDER a virtual environment with PyPI's newest versions of what analysis/ needs, or brings the
# one that is there up to date, and prints the versions. Exit code 77 where that is not possible, offline for example:
# the tests in that environment are then skipped.
set -euo pipefail
source "$(dirname "$0")/../../scripts/python.sh"
[ $# = 1 ] || { sed -n '2,4s/^# \?//p' "$0" >&2; exit 2; }
environment=$1 python=$1/bin/python packages=(h5py numpy pandas matplotlib scipy)
skip() { echo "skipped: $*"; exit 77; }

if ! "$python" -m pip --version >/dev/null 2>&1; then
  if [ -n "$(ls -A "$environment" 2>/dev/null)" ] && [ ! -f "$environment/pyvenv.cfg" ]; then
    echo "newest.sh: $environment: holds something else than a virtual environment: choose another folder" >&2
    exit 2
  fi
  maker=$(find_python ensurepip venv) || skip 'no Python of 3.11 or newer makes virtual environments: install python3-venv'
  "$maker" -m venv --clear "$environment"
fi
timeout 240 "$python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 20 --only-binary :all: \
  --upgrade "${packages[@]}" </dev/null || echo "PyPI's newest ${packages[*]} could not be fetched"
"$python" - "${packages[@]}" <<'PYTHON' || skip 'they are not installed'
import importlib
import platform
import sys

print("Python", platform.python_version())
for name in sys.argv[1:]:
    print(name, importlib.import_module(name).__version__)
PYTHON
