# Sourced by quickstart.sh and test.sh: the Debian 12 packages that Switchyard needs, and how they get there.

build_packages=(
  g++ cmake ninja-build libopenmpi-dev openmpi-bin libdnnl-dev libhdf5-openmpi-dev libboost-program-options-dev
  libfmt-dev librandom123-dev libxxhash-dev zlib1g-dev dataset-fashion-mnist
)
test_packages=(
  libgtest-dev ccache clang-format iproute2 xz-utils python3-h5py python3-numpy python3-pandas python3-matplotlib
  python3-scipy python3-nbclient python3-ipykernel python3-venv
)
# Without these, tests are skipped: those of the job scripts; the fuzzed readers.
slurm_packages=(slurmctld slurmd slurm-client munge)
fuzz_packages=(clang libclang-rt-14-dev)

# Debian's own compiler, mpirun and python3, whatever else (conda, pyenv) stands first on the path.
export PATH=/usr/bin:/bin:$PATH

say() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }

# install_packages NAME...: installs those that are missing, as root or through sudo, without questions. Where neither
# is possible it prints what to run and ends the script.
install_packages() {
  local package missing=() as_root=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null) == ?i* ]] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  if [ "$(id -u)" != 0 ]; then
    if ! can_sudo; then
      printf 'These Debian packages are missing, and this user cannot install them. Run as root, then start again:\n\n' >&2
      printf '    apt-get update && apt-get install -y --no-install-recommends %s\n' "${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  say "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
}

# A password is asked for only where somebody can type it.
can_sudo() { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }; }
