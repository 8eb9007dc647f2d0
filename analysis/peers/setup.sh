#!/usr/bin/env bash
# setup.sh [--help] [REQUIREMENT...]: makes build/peers-venv, a virtual environment with the PyTorch that compare.py
# measures. One that is there already is replaced once the new one works.
#
# Without arguments that is PyPI's own wheel of PyTorch 2.15.0, the newest that was tried, for the CPU alone: about 700
# MB of downloads instead of several gigabytes. The wheel wants every CUDA library just to be loaded. Of these only the
# two that it touches while it loads come along; empty libraries of the same names stand in for the rest, and symbols
# are looked up when they are first called, which on the CPU they never are.
#
# With arguments pip installs those instead, with all that they need, e.g. `setup.sh torch` on a machine with a GPU.
set -euo pipefail
for word in "$@"; do
  case "$word" in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "setup.sh: unknown option $word: it takes requirements for pip, such as torch, and --help" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
source scripts/python.sh
environment=build/peers-venv
new=$environment.new
packages=(torch==2.15.0 nvidia-cuda-runtime==13.2.86 nvidia-nvshmem-cu13==3.7.2)
needed=(filelock fsspec jinja2 networkx numpy sympy typing_extensions)

python=$(find_python ensurepip venv) || {
  echo 'setup.sh: no Python of 3.11 or newer makes virtual environments: install python3-venv' >&2
  exit 1
}
rm -rf "$new"
trap 'rm -rf "$new"' EXIT
"$python" -m venv "$new"
pip=("$new/bin/python" -m pip install --disable-pip-version-check --no-cache-dir)

if [ $# -gt 0 ]; then
  "${pip[@]}" "$@" numpy h5py
else
  "${pip[@]}" "${needed[@]}" h5py
  "${pip[@]}" --no-deps "${packages[@]}"
  site=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  libraries=$site/torch/lib
  for name in $(readelf --dynamic "$libraries"/lib{torch,c10}*.so |
                sed -n 's/.*(NEEDED).*\[\(lib\(cu\|nv\|nccl\).*\)\]/\1/p' | sort -u); do
    [ -n "$(find "$libraries" "$site/nvidia" -name "$name")" ] ||
      cc -shared -nostdlib -Wl,-soname,"$name" -o "$libraries/$name" -x c /dev/null
  done
  echo 'import os, sys; sys.setdlopenflags(os.RTLD_LAZY)' > "$site/lazy_symbols.pth"
fi

"$new/bin/python" -c 'import h5py, torch; torch.ones(2, 2) @ torch.ones(2, 2); print("PyTorch", torch.__version__)'
# Its scripts name the folder that they were made for.
{ grep -rlIF "${new##*/}" "$new/bin" "$new/pyvenv.cfg" || true; } |
  xargs -r -d '\n' sed -i "s/${new##*/}/${environment##*/}/g"
rm -rf "$environment"
mv "$new" "$environment"
du -sh "$environment"
