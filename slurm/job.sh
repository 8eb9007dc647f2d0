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
((ranks % nodes == 0)) || refuse "$ranks ranks on $nodes nodes: give --ntasks-per-node, the same number on each"

# Each rank on cores of its own, as many as it has threads.
case $SWITCHYARD_LAUNCHER in
  mpirun*) launch=($SWITCHYARD_LAUNCHER -n "$ranks" --map-by "ppr:$((ranks / nodes)):node:PE=$threads" --bind-to core) ;;
  srun*) launch=($SWITCHYARD_LAUNCHER --ntasks="$ranks" --cpus-per-task="$threads" --cpu-bind=cores) ;;
  *) refuse "SWITCHYARD_LAUNCHER = $SWITCHYARD_LAUNCHER: give mpirun or srun, with options where needed" ;;
esac

print_mesh() {
  say "job $SLURM_JOB_ID, start $((starts + 1)): $nodes nodes x $((ranks / nodes)) ranks x $threads threads," \
    "${SWITCHYARD_LAUNCHER}, on $SLURM_JOB_NODELIST"
}

# Rank 0 of a world prints one line: more lines are more worlds.
check_launcher() {
  local lines
  lines=$("${launch[@]}" "$SWITCHYARD" --version </dev/null) || refuse "these ranks do not start: ${launch[*]}"
  lines=$(wc -l <<<"$lines")
  [ "$lines" = 1 ] || refuse "\"$SWITCHYARD_LAUNCHER\" started $lines programs of their own, not $ranks ranks of one:" \
    "this SLURM does not speak this MPI's PMI. Set SWITCHYARD_LAUNCHER=mpirun (slurm/site.sh)"
}

# run SIGNAL COMMAND...: what SLURM or a user signals to this script goes to the command as SIGNAL. If it then ends with
# code 75 (stopped, checkpoint written), the job goes back into the queue, to be started with SLURM_RESTART_COUNT.
run() {
  local signal=$1 status=0
  shift
  "$@" </dev/null &
  local command=$!
  trap "say 'told to stop: waiting for a checkpoint'; kill -$signal $command 2>/dev/null || true" USR1 TERM
  while kill -0 "$command" 2>/dev/null; do wait "$command" || true; done  # a signal ends `wait` early
  wait "$command" || status=$?
  [ "$status" = 75 ] || exit "$status"
  say "stopped with a checkpoint; requeuing job $SLURM_JOB_ID"
  scontrol requeue "$SLURM_JOB_ID" ||
    { say 'it could not be requeued: submit it again with --resume, as the last word' >&2; exit 75; }
  sleep 60  # until SLURM ends this script
}

# train [--KEY VALUE ...]: from the newest checkpoint if this job was started before, whatever it was told to begin from.
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
  run USR1 "${launch[@]}" "$SWITCHYARD" train --parallel.threads "$threads" "${words[@]}"
}
