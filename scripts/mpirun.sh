#!/usr/bin/env bash
# mpirun.sh RANKS COMMAND...: mpirun on this one machine, with more ranks than cores where asked, and as root where that
# is who runs it (containers).
# mpirun.sh MPIRUN WORDS...: that mpirun with its own words, for several machines.
#
# On SIGTERM, SIGINT or SIGHUP mpirun would leave the ranks one second before it kills them. In the first form they get
# SIGUSR1 instead, on which a run writes its checkpoint, and as long as they take; a second signal ends them at once.
# SIGUSR1, SIGUSR2 and SIGXCPU are SIGUSR1 to them however often they come. Under nohup SIGHUP is ignored. In the second
# form signals are mpirun's own matter.
#
# In both mpirun is ended where it outlives its ranks: see watch().
set -euo pipefail
say() { echo "scripts/mpirun.sh: $*" >&2; }
refuse() { say "$*"; exit 2; }
[ $# -ge 2 ] || { echo 'usage: scripts/mpirun.sh RANKS COMMAND..., or MPIRUN WORDS...' >&2; exit 2; }
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
# After 5 s without a word from another machine mpirun asks there every 2 s, and gives it up after three questions
# without an answer. (By itself it asks after 300 s for the first time.)
export OMPI_MCA_oob_tcp_keepalive_time=${OMPI_MCA_oob_tcp_keepalive_time:-5}
export OMPI_MCA_oob_tcp_keepalive_intvl=${OMPI_MCA_oob_tcp_keepalive_intvl:-2}
export OMPI_MCA_oob_tcp_keepalive_probes=${OMPI_MCA_oob_tcp_keepalive_probes:-3}

# watch MPIRUN: ends that process where it stays for 10 s after the last of its ranks on this machine. Open MPI 4.1 may
# stay for good when a rank is killed as it starts. Where the network to another machine is cut it may stay for a
# quarter of an hour, until TCP gives up: the questions above are not asked while something else is on its way there.
#
# A healthy mpirun may stay, too: where it is stopped (a suspended job, a debugger), and where what the ranks have
# printed waits for its reader, in a pipe or at a terminal. The latter holds up this function's own words as well.
watch() {
  trap '' TERM INT HUP USR1 USR2 XCPU PIPE  # it ends with mpirun, at whose end `read` finds the end of its pipe
  local mpirun=$1 pause=0.1 looks=0 had_rank=false status children
  while :; do
    status=0
    read -rt "$pause" || status=$?
    if [ "$status" -le 128 ] || ! kill -0 "$mpirun" 2>/dev/null; then return; fi
    look_at_children "$mpirun"
    [ "$children" != rank ] || had_rank=true
    case $children,$had_rank in
      none,true | zombie,*) ((++looks)) ;;
      *) looks=0 ;;
    esac
    if ((looks > 0)) && { is_in_state "$mpirun" Tt || has_unread_output "$mpirun"; }; then looks=0; fi
    case $looks in
      10) say "mpirun (process $mpirun) is still there 10 s after its last rank here: it is ended" || true ;;
      11) kill -KILL "$mpirun" || true ;;
    esac
    pause=0.1  # so that not even a rank that is killed at once is missed
    if "$had_rank" || ((looks > 0)); then pause=1; fi
  done
}

# Sets `children` to the first of these that mpirun has: a living rank, a process that this user may not look into, a
# zombie, none. (ssh or srun, which start ranks on other machines, are children as well, and are passed over.)
look_at_children() {
  local thread pids pid environment
  children=none
  for thread in /proc/"$1"/task/*; do
    pids=()
    { read -ra pids <"$thread/children" || true; } 2>/dev/null
    for pid in "${pids[@]}"; do
      [ "$pid" != "$BASHPID" ] || continue  # whoever started this script may be a rank, and have passed on the variable
      environment=()
      if is_in_state "$pid" Z; then
        [ "$children" != none ] || children=zombie
      elif [ ! -r /proc/"$pid"/environ ]; then
        [ ! -e /proc/"$pid" ] || children=hidden
      else
        { mapfile -d '' environment </proc/"$pid"/environ || true; } 2>/dev/null
        if [[ " ${environment[*]}" == *' OMPI_COMM_WORLD_RANK='* ]]; then children=rank; return; fi
      fi
    done
  done
}

# is_in_state PID LETTERS
is_in_state() {
  local stat=''
  { read -r stat </proc/"$1"/stat || true; } 2>/dev/null
  [[ $stat == *') '[$2]' '* ]]
}

# has_unread_output PID: whether something lies in a pipe that is its standard output or error.
has_unread_output() {
  local file
  for file in /proc/"$1"/fd/{1,2}; do
    if [ -p "$file" ] && { read -t 0 <"$file"; } 2>/dev/null; then return 0; fi
  done
  return 1
}

# become COMMAND...: this process, watched. mpirun closes the pipe's end in its ranks.
become() {
  local self=$BASHPID
  exec {alive}> >(watch "$self")
  exec "$@"
}

if [[ $1 == *mpirun || $1 == *mpiexec ]]; then
  type -P -- "$1" >/dev/null ||
    refuse "$1: there is no such program: name the mpirun of the MPI that Switchyard was built with"
  become "$@"
fi
[[ $1 =~ ^0*[1-9][0-9]*$ ]] || refuse "RANKS = $1: give a whole number of at least 1"
ranks=$1; shift
# mpirun says little of a program that it cannot start. Words of its own may stand before the program.
if [[ $1 != -* ]] && ! type -P -- "$1" >/dev/null; then
  problem='there is no such program'
  [ ! -e "$1" ] || problem='it is there, but not a program that this user may run'
  refuse "$1: $problem; to build Switchyard: cmake --preset release && cmake --build build/release"
fi
type -P mpirun >/dev/null || refuse 'there is no mpirun on the PATH (Debian package openmpi-bin)'

# In a session of its own, so that Ctrl-C at the terminal reaches this script alone; if this script is killed, mpirun
# ends as well. mpirun need not wait before it ends the other ranks when one exits with an error: ranks agree on errors.
# It looks for no other machines, neither by ssh nor in a batch system's allocation: in a shell inside srun, SLURM would
# let it start nothing.
become setsid setpriv --pdeathsig TERM \
  mpirun --quiet --oversubscribe --bind-to none --mca plm isolated --mca ras ^slurm,gridengine,tm,lsf,alps \
  --mca btl self,vader --mca odls_base_sigkill_timeout 0 -n "$ranks" "$@" </dev/null &
job=$!
stop() {
  kill -USR1 "$job" 2>/dev/null || true
  trap 'kill -TERM "$job" 2>/dev/null || true' TERM INT HUP
}
trap stop TERM INT HUP
trap 'kill -USR1 "$job" 2>/dev/null || true' USR1 USR2 XCPU

# A signal ends `wait` early. Its own word on a job that was killed says less than what follows here.
while kill -0 "$job" 2>/dev/null; do wait "$job" 2>/dev/null || true; done
status=0
wait "$job" || status=$?
# mpirun is quiet about ranks that ended with an error, since they say why themselves; one that was killed cannot.
# Beyond 192 there are no signals: 205 is Open MPI's own code where it has lost another machine.
if ((status > 128 && status <= 192)); then
  advice=''
  [ "$status" != 137 ] || advice=': where nobody sent it, memory ran out (fewer ranks, or a smaller train.microbatch)'
  say "a rank, or mpirun itself, was ended by signal $((status - 128)) (SIG$(kill -l "$status"))$advice"
fi
exit "$status"
