#!/usr/bin/env bash
# cluster.sh start|stop LINK: a SLURM of two nodes, nodeA and nodeB, on this one machine, for the tests of the job
# scripts. Everything that it writes stands in a temporary folder that LINK points to; SLURM_CONF=LINK/slurm.conf finds
# it. It belongs to the user who starts it, asks nothing of systemd, and ends with the process that started it (ctest).
# Exit code 77 where SLURM is not installed or does not start: the tests are then skipped.
set -euo pipefail
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
[ $# = 2 ] || { sed -n '2s/^# \?//p' "$0" >&2; exit 2; }
action=$1 link=$2

start() {
  local program
  for program in munged slurmctld slurmd sbatch srun scontrol mpirun python3; do
    command -v "$program" >/dev/null ||
      skip "there is no $program (Debian packages: slurmctld slurmd slurm-client munge)"
  done
  stop
  # The name of a socket holds about 100 characters, which a build folder may exceed.
  folder=$(mktemp -d "${TMPDIR:-/tmp}/switchyard-slurm.XXXXXX")
  chmod 755 "$folder"  # munged refuses a socket that not everyone may reach
  mkdir "$folder"/{munge,state,nodeA,nodeB}
  ln -sfn "$folder" "$link"
  write_configuration
  export SLURM_CONF=$folder/slurm.conf

  dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
  chmod 400 "$folder/munge/key"
  munged --force --socket="$folder/munge.socket" --key-file="$folder/munge/key" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" 2>>"$folder/munge/log" || give_up 'munged'
  slurmctld >"$folder/slurmctld.out" 2>&1 || give_up slurmctld
  for node in nodeA nodeB; do
    slurmd -N "$node" >"$folder/$node.out" 2>&1 || give_up "slurmd of $node"
  done
  for ((tenths = 0; tenths < 300; ++tenths)); do
    [ "$(sinfo --noheader --format=%T:%D --states=idle 2>/dev/null)" != idle:2 ] || break
    sleep 0.1
  done
  sinfo --Node --long || true
  [ "$tenths" -lt 300 ] || give_up 'two idle nodes'

  # $PPID is the ctest that started this script. If it ends without a stop, this one is left to do it.
  setsid bash -c 'while kill -0 "$3" 2>/dev/null && [ -d "$4" ]; do sleep 1; done; exec "$1" stop "$2"' \
    _ "$(realpath "$0")" "$link" "$PPID" "$folder" </dev/null >/dev/null 2>&1 &
}

skip() { echo "skipped: $*"; exit 77; }

give_up() {
  tail -n 20 "$folder"/*.out "$folder"/*.log "$folder"/munge/log 2>/dev/null || true
  stop
  skip "SLURM did not start: no $1"
}

write_configuration() {
  local ports user
  user=$(id -un)
  # Free ones, held at the same time so that they differ.
  ports=($(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in held))'))
  cat >"$folder/slurm.conf" <<CONF
ClusterName=switchyard
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
# A requeued job waits until its old credentials have expired, two minutes by default.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/%n
# Two nodes share this machine's /tmp, where their PMIx would meet.
TmpFS=$folder/%n
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
# Two nodes of two cores and two GPUs, whatever this machine has.
SlurmdParameters=config_overrides
NodeName=nodeA NodeAddr=127.0.0.1 NodeHostname=$(hostname -s) Port=${ports[1]} CoresPerSocket=2 Gres=gpu:2
NodeName=nodeB NodeAddr=127.0.0.1 NodeHostname=$(hostname -s) Port=${ports[2]} CoresPerSocket=2 Gres=gpu:2
PartitionName=compute Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL State=UP PriorityTier=2 PreemptMode=OFF
CONF
  # Devices that are everywhere stand for GPUs: SLURM only counts them.
  printf '%s\n' AutoDetect=off 'Name=gpu File=/dev/null' 'Name=gpu File=/dev/zero' >"$folder/gres.conf"
}

stop() {
  folder=$(readlink "$link") || return 0
  rm -f "$link"
  [ -f "$folder/slurm.conf" ] || return 0
  export SLURM_CONF=$folder/slurm.conf
  if [ -f "$folder/slurmctld.pid" ]; then
    timeout 5 scancel --user="$(id -un)" 2>/dev/null || true
    for ((tenths = 0; tenths < 100; ++tenths)); do
      [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
      sleep 0.1
    done
  fi
  local name
  for name in nodeA nodeB slurmctld munged; do end_process "$(cat "$folder/$name.pid" 2>/dev/null || true)"; done
  # What a job has left behind: it carries this cluster's configuration in its environment.
  for process in /proc/[0-9]*; do
    [ "${process#/proc/}" != $$ ] || continue
    if grep -qzxF "SLURM_CONF=$SLURM_CONF" "$process/environ" 2>/dev/null; then end_process "${process#/proc/}"; fi
  done
  rm -rf "$folder"
}

end_process() {
  [ -n "$1" ] && kill "$1" 2>/dev/null || return 0
  for ((tenths = 0; tenths < 50; ++tenths)); do
    grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null || return 0  # gone, or a zombie
    sleep 0.1
  done
  kill -KILL "$1" 2>/dev/null || true
}

case $action in
  start) start ;;
  stop) stop ;;
  *) echo "cluster.sh: $action: give start or stop" >&2; exit 2 ;;
esac
