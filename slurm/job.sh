# Sourced by the job scripts: the ranks of this job and what starts them, and how a job that is told to stop goes on.
# The allocation says it all: nodes, tasks (= ranks) per node, CPUs per task (= threads per rank).

say() { echo "slurm: $*"; }
refuse() { say "$*" >&2; exit 2; }

[ -n "${SLURM_JOB_ID:-}" ] || refuse 'this is a job script: give it to sbatch'
: "${SWITCHYARD_ROOT:=$SLURM_SUBMIT_DIR}"
[ -f "$SWITCHYARD_ROOT/slurm/site.sh" ] ||
  refuse "$SWITCHYARD_ROOT has no slurm/site.sh: submit from Switchyard's folder, or set SWITCHYARD_ROOT to it"
source "${SWITCHYARD_SITE:-$SWITCHYARD_ROOT/slurm/site.sh}"
[ -x "$SWITCHYARD" ] || refuse "there is no program $SWITCHYARD: build it, or set SWITCHYARD to it"

nodes=$SLURM_JOB_NUM_NODES
ranks=${SLURM_NTASKS:-$nodes}
threads=${SLURM_CPUS_PER_TASK:-1}
starts=${SLURM_RESTART_COUNT:-0}
command='' told_to_stop=false
trap stop USR1 USR2
((ranks % nodes == 0)) || refuse "$ranks ranks on $nodes nodes: give --ntasks-per-node, the same number on each"

# Its words: those that hold spaces stand in quotes, which xargs takes off.
words=$(xargs printf '%s\n' <<<"$SWITCHYARD_LAUNCHER") ||
  refuse "SWITCHYARD_LAUNCHER = $SWITCHYARD_LAUNCHER: its quotes are not closed"
mapfile -t launcher <<<"$words"
# Each rank on cores of its own, as many as it has threads. "{ranks}" is left open: a study's runs differ in it. mpirun
# would outlive ranks when the network to a node is cut; mpirun.sh ends it, and a study, too, finds it on the path.
PATH=$SWITCHYARD_ROOT/scripts:$PATH
case ${launcher[0]} in
  *mpirun | *mpiexec)
    launcher=(mpirun.sh "${launcher[@]}" -n '{ranks}' --map-by "slot:PE=$threads" --bind-to core)
    ;;
  *srun) launcher+=('--ntasks={ranks}' --cpus-per-task="$threads" --cpu-bind=cores) ;;
  *) refuse "SWITCHYARD_LAUNCHER = $SWITCHYARD_LAUNCHER: give mpirun or srun, with options where needed" ;;
esac
launch=("${launcher[@]/'{ranks}'/$ranks}")

print_mesh() {
  say "job $SLURM_JOB_ID, start $((starts + 1)): nodes $nodes ($SLURM_JOB_NODELIST), ranks $ranks," \
    "threads per rank $threads${SLURM_GPUS_ON_NODE:+, GPUs per node $SLURM_GPUS_ON_NODE}, by $SWITCHYARD_LAUNCHER"
}

# Rank 0 of a world prints how many ranks it has.
check_launcher() {
  local worlds advice
  advice='Set SWITCHYARD_LAUNCHER (slurm/site.sh): mpirun of the MPI that Switchyard was built with, or srun with an'
  advice+=' --mpi that `srun --mpi=list` names and that MPI speaks (pmix for Open MPI)'
  # Right after an earlier start Open MPI's daemons may still be removing the folder that the next ones make.
  count_ranks() { "${launch[@]}" "$SWITCHYARD" ranks </dev/null; }
  worlds=$(count_ranks) || { sleep 3; worlds=$(count_ranks); } ||
    refuse "$ranks ranks do not start by: ${launch[*]}. $advice"
  grep -qx "ranks $ranks" <<<"$worlds" ||
    refuse "${launch[*]}: $(grep -c '^ranks ' <<<"$worlds") worlds of their own, not one of $ranks ranks. $advice"
}

# Preempted on a cluster without preempt_send_user_signal: SLURM has ended mpirun's daemons, not asked this script.
was_preempted() { scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q ' PreemptTime=[0-9]'; }

stop() {
  say 'told to stop'
  told_to_stop=true
  [ -n "$command" ] || return 0
  while ((SECONDS < begun + 5)); do sleep 0.1; done  # mpirun knows what to do with it once its ranks have started
  kill -USR1 "$command" 2>/dev/null || true
}

# run COMMAND...: SLURM's signal to this script goes on to the command. If that then ends with code 75 (stopped,
# checkpoint written), the job goes back into the queue, and its next start has SLURM_RESTART_COUNT.
run() {
  local status=0
  begun=$SECONDS
  "$@" </dev/null &
  command=$!
  if $told_to_stop; then stop; fi
  while kill -0 "$command" 2>/dev/null; do wait "$command" || true; done  # a signal ends `wait` early
  wait "$command" || status=$?
  [ "$status" != 0 ] || exit 0
  say "ended with code $status$( ((status <= 128 || status > 192)) || echo ": by signal $((status - 128))")" >&2
  [ "$status" = 75 ] || was_preempted || exit "$status"

  say "stopped before its end: back into the queue"
  scontrol requeue "$SLURM_JOB_ID" || say 'no requeue: submit the same again, with --resume' >&2
  exit 75
}

# train [--KEY VALUE ...]: a job that was started before goes on from the newest checkpoint, whatever it began from.
train() {
  local words=() skip=false
  for word in "$@"; do
    if ((starts > 0)); then
      case $word in
        --resume) skip=true; continue ;;
        --resume=* | --overwrite) skip=false; continue ;;
        --*) skip=false ;;
        *) if $skip; then skip=false; continue; fi ;;
      esac
    fi
    words+=("$word")
  done
  if ((starts > 0)); then words+=(--resume); fi
  run "${launch[@]}" --quiet "$SWITCHYARD" train --parallel.threads "$threads" "${words[@]}"
}
