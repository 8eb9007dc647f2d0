#!/usr/bin/env bash
# mpirun.sh RANKS COMMAND...: mpirun on this one machine, with more ranks than cores where asked, and as root where that
# is who runs it (containers).
#
# On SIGTERM, SIGINT or SIGHUP mpirun would leave the ranks one second before it kills them. Here they get SIGUSR1, on
# which a run writes its checkpoint, and as long as they take; a second signal ends them at once. SIGUSR1, SIGUSR2 and
# SIGXCPU are SIGUSR1 to them however often they come. Under nohup SIGHUP is ignored.
set -euo pipefail
refuse() { echo "$*" >&2; exit 2; }
[ $# -ge 2 ] || refuse 'usage: scripts/mpirun.sh RANKS COMMAND...'
[[ $1 =~ ^0*[1-9][0-9]*$ ]] || refuse "scripts/mpirun.sh: RANKS = $1: give a whole number of at least 1"
ranks=$1; shift
# mpirun says little of a program that it cannot start. Words of its own may stand before the program.
if [[ $1 != -* ]] && ! type -P -- "$1" >/dev/null; then
  problem='there is no such program'
  [ ! -e "$1" ] || problem='it is there, but not a program that this user may run'
  refuse "scripts/mpirun.sh: $1: $problem; to build Switchyard: cmake --preset release && cmake --build build/release"
fi
type -P mpirun >/dev/null || refuse 'scripts/mpirun.sh: there is no mpirun on the PATH (Debian package openmpi-bin)'
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# In a session of its own, so that Ctrl-C at the terminal reaches this script alone; if this script is killed, mpirun
# ends as well. mpirun need not wait before it ends the other ranks when one exits with an error: ranks agree on errors.
# It looks for no other machines, neither by ssh nor in a batch system's allocation: in a shell inside srun, SLURM would
# let it start nothing.
setsid setpriv --pdeathsig TERM \
  mpirun --quiet --oversubscribe --bind-to none --mca plm isolated --mca ras ^slurm,gridengine,tm,lsf,alps \
  --mca btl self,vader --mca odls_base_sigkill_timeout 0 -n "$ranks" "$@" </dev/null &
job=$!
stop() {
  kill -USR1 "$job" 2>/dev/null || true
  trap 'kill -TERM "$job" 2>/dev/null || true' TERM INT HUP
}
trap stop TERM INT HUP
trap 'kill -USR1 "$job" 2>/dev/null || true' USR1 USR2 XCPU

# A signal ends `wait` early.
while kill -0 "$job" 2>/dev/null; do wait "$job" || true; done
status=0
wait "$job" || status=$?
# mpirun is quiet about ranks that ended with an error, since they say why themselves; one that was killed cannot.
if [ "$status" -gt 128 ]; then echo "scripts/mpirun.sh: a rank was ended by signal $((status - 128))" >&2; fi
exit "$status"
