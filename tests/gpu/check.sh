#!/usr/bin/env bash
# check.sh [--bundle PLACE] [--out FOLDER [--overwrite]] [--python PROGRAM] [--seconds N] [--only PARTS]
#          [--digests short]
# What a machine with a GPU tells, in parts, the most telling first; in brackets how many seconds each may take:
#   kernels  conformance of every kernel (120)
#   digests  the promise: equal digests of different layouts (short: the few that tell most, 60; all of them 180)
#   speed    steps of the study's models, and of an aligned ViT at three microbatches (150)
#   products where those steps go, and their matrix products (90)
#   torch    the same steps in PyTorch, where PROGRAM has it (100)
#   rest     every kernel's speed, small microbatches, compute-sanitizer (150)
# PARTS are some of these (kernels,digests,speed); without --only all. Builds build/cuda, or takes what
# tests/gpu/bundle.sh made. A part that fails does not keep the others from running; what has no time left, in its part or
# after N seconds (default 540, the build not among them), is left out, and counted. summary.txt, which it prints, and
# logs.tar.gz go to --out (default build/gpu-check), a folder that is new or empty; with --overwrite they replace those
# of an earlier check. Exit code 1: something failed.
set -uo pipefail
here=$PWD
cd "$(dirname "$0")/../.."
usage() { sed -n '2,16s/^# \?//p' "$0"; }
refuse() { echo "check.sh: $*" >&2; usage >&2; exit 2; }
from_here() { case "$1" in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
all_parts=kernels,digests,speed,products,torch,rest
bundle= out= overwrite=no python=python3 seconds=540 parts=$all_parts digests=all
while [ $# -gt 0 ]; do
  case "$1" in
    --help) usage; exit 0 ;;
    --overwrite) overwrite=yes; shift; continue ;;
    --bundle | --out | --python | --seconds | --only | --digests) [ -n "${2:-}" ] || refuse "$1: a value is missing" ;;
    *) refuse "$1: there is no such option" ;;
  esac
  case "$1" in
    --bundle) bundle=$(from_here "$2") ;;
    --out) out=$(from_here "$2") ;;
    --python) python=$2 ;;
    --seconds) seconds=$2 ;;
    --only) parts=$2 ;;
    --digests) digests=$2 ;;
  esac
  shift 2
done
[[ $seconds =~ ^[0-9]+$ ]] || refuse "--seconds $seconds: give a whole number"
for part in ${parts//,/ }; do
  [[ ,$all_parts, == *,$part,* ]] || refuse "--only $part: take some of $all_parts"
done
[ "$digests" = short ] || [ "$digests" = all ] || refuse "--digests $digests: give short or all"
wants() { [[ ,$parts, == *,$1,* ]]; }
[ -z "$bundle" ] || [ -e "$bundle" ] || refuse "--bundle $bundle: there is no such file or folder"
if [ -n "$out" ] && [ -n "$(ls -A "$out" 2>/dev/null)" ]; then
  [ $overwrite = yes ] || refuse "--out $out: is not empty; replace an earlier check's logs (--overwrite), or choose another"
  [ -f "$out/summary.txt" ] || refuse "--out $out: holds no check's summary.txt, and --overwrite replaces nothing else"
fi
out=${out:-$PWD/build/gpu-check}
[ -n "$bundle" ] || nvidia-smi -L >/dev/null 2>&1 || { echo 'check.sh: nvidia-smi finds no GPU: nothing is built' >&2; exit 1; }

# --- Logs are many: they are made elsewhere, and packed after each part and at the end, whatever that is.
mkdir -p "$out"
out=$(cd "$out" && pwd)
summary=$out/summary.txt
: >"$summary"
scratch=$(mktemp -d)
logs=$scratch/logs
mkdir "$logs"
pack() { tar -C "$scratch" -czf "$out/logs.tar.gz.tmp" logs && mv "$out/logs.tar.gz.tmp" "$out/logs.tar.gz"; }
leave() {
  local running; running=$(jobs -p)
  [ -z "$running" ] || kill $running 2>/dev/null
  cp "$summary" "$logs/"
  pack
  rm -rf "$scratch"
}
trap leave EXIT
trap 'note "stopped by a signal" "the logs are kept"; exit 143' TERM INT HUP

if [ -f "$bundle" ]; then
  mkdir "$scratch/bundle"
  if type -P xz >/dev/null; then tar -C "$scratch/bundle" -xJf "$bundle"; else "$python" -m tarfile -e "$bundle" "$scratch/bundle"; fi || exit 1
  bundle=$scratch/bundle
fi
own_libraries=${LD_LIBRARY_PATH-}
if [ -n "$bundle" ]; then
  bundle=$(cd "$bundle" && pwd)
  bin=$bundle/bin
  export LD_LIBRARY_PATH=$bundle/lib${own_libraries:+:$own_libraries} OPAL_PREFIX=$bundle PATH=$bundle/bin:$PATH
else
  cmake --preset cuda && cmake --build build/cuda || exit 1
  bin=$PWD/build/cuda
fi
program=$bin/switchyard
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# One machine, perhaps a bare one without a network: without ssh Open MPI finds no launcher, a single rank needs no
# daemon, not every sandbox lets ranks read each other's memory, and NCCL would look for another interface.
export OMPI_MCA_plm=isolated OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_ess_singleton_isolated=1 PMIX_MCA_pcompress_base_silence_warning=1 NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}

# --- What is noted, and time
SECONDS=0
end=$seconds part_end=$seconds
failures=0 left_out=0
say() { tee -a "$summary"; }
note() { printf '%4d s  %-46s %s\n' "$SECONDS" "$1" "$2" | say; }
indented() { sed 's/^/          /' | say; }
# What there was no time for, or what the program was built without, has not failed.
fail() { # TITLE WHY
  case "$2" in
    *'no time left') note "$1" 'left out: no time left'; left_out=$((left_out + 1)) ;;
    *'built without NCCL'*) note "$1" 'left out: the program has no NCCL'; left_out=$((left_out + 1)) ;;
    *) note "$@"; failures=$((failures + 1)) ;;
  esac
}
finish() {
  note 'parts that failed, that were left out' "$failures, $left_out"
  note 'logs' "$out/logs.tar.gz"
  [ "$failures" = 0 ] || exit 1
  exit 0
}
part() { # NAME SECONDS: runs check_NAME, within so many seconds
  wants "$1" || return 0
  part_end=$((SECONDS + $2 < end ? SECONDS + $2 : end))
  note "--- $1" "up to $((part_end - SECONDS)) s"
  "check_$1"
  part_end=$end
  pack
}
# LIMIT LOG COMMAND...: at most so many seconds. In the background, so that a signal is heard meanwhile.
within() {
  local limit=$1 log=$2 left=$((part_end - SECONDS)); shift 2
  [ "$left" -gt 3 ] || { echo 'no time left' >"$log"; return 124; }
  timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$log" 2>&1 &
  wait $!
}
# STATUS LOG: what a part said of its failure
why() {
  local said
  [ "$1" != 124 ] || grep -qx 'no time left' "$2" || { echo 'failed: not done within its time'; return; }
  said=$(grep '^switchyard: ' "$2" | grep -vm 1 warning || grep -vE '^[ -]*$' "$2" | tail -n 1)
  echo "failed ($1): ${said:0:180}"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a > 0 && b > 0) printf "%.2f", a / b; else print "-" }'; }

# --- The machine
note "$(date -u +%F)" "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
# CUDA's own libraries may lie where the loader does not look.
missing() { ldd "$program" 2>/dev/null | awk '/not found/ { print $1 }'; }
for library in $(missing); do
  found=$(find -L /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
    $("$python" -c 'import site; print(*[p + "/nvidia" for p in site.getsitepackages()])' 2>/dev/null) \
    -name "$library" 2>/dev/null | head -n 1)
  [ -z "$found" ] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "$found")
done
if [[ $(missing) == libnccl* ]] && [ -x "$bin/switchyard-without-nccl" ]; then
  note 'NCCL' 'is not here: the program that was built without it'
  program=$bin/switchyard-without-nccl
fi
[ -z "$(missing)" ] || { fail 'shared libraries that nothing has' "$(missing | tr '\n' ' ')"; finish; }
within 60 "$logs/ranks.log" "$program" ranks
status=$?
[ $status != 132 ] || { fail 'program' "built for another processor: configure with -DSWITCHYARD_NATIVE=OFF"; finish; }
[ $status = 0 ] || { fail 'program' "$(why $status "$logs/ranks.log")"; finish; }
within 60 "$logs/gpu.log" env SWITCHYARD_TEST_DEVICE=cuda "$bin/test_kernels_reduce"
[ $? != 77 ] || { fail 'GPU' 'none: nothing more to check'; finish; }

# --- PyTorch compiles for minutes: what it keeps of that is made while others check.
study() { echo --config "configs/vit-seed-$1.cfg" --train.batch 512 --train.microbatch "${2:-512}"; } # MODEL [MICROBATCH]
aligned() { # MICROBATCH
  echo --config configs/vit-seed-switch.cfg --model.width 768 --model.heads 12 --ffn.hidden 3072 --ffn.experts 8 \
    --train.batch 1024 --train.microbatch "$1"
}
twin() { # MODEL LOG OPTIONS...
  local model=$1 log=$2; shift 2
  within 180 "$log" env LD_LIBRARY_PATH="$own_libraries" "$python" analysis/peers/twin.py $(study "$model") \
    --compute.dtype bf16 --device cuda --compile --microbatch 512 "$@"
}
compiling=()
if wants torch && within 60 "$logs/torch.log" env LD_LIBRARY_PATH="$own_libraries" "$python" -c 'import torch'; then
  for model in dense switch random; do
    twin $model "$logs/twin-$model-first.log" --steps 1 --warmup 1 &
    compiling+=($!)
  done
elif wants torch; then
  note 'PyTorch' "$python has none"
  parts=${parts/torch/}
fi

# --- kernels. What fails is run once more, each case for itself: a GPU that saw one error does nothing more for the
# process that made it.
export SWITCHYARD_TEST_DEVICE=cuda
cases() { "$1" --gtest_list_tests | awk '/^[^ ]/ { suite = $1 } /^ / { print suite $1 }' | sort; }
run_test() { # PROGRAM
  local name status; name=$(basename "$1")
  within 100 "$logs/$name.log" "$1"
  status=$?
  echo $status >"$logs/$name.status"
  [ $status != 0 ] && [ $status != 77 ] || return
  : >"$logs/$name.failed"
  comm -23 <(cases "$1") <(sed -nE 's/^\[ +(OK|SKIPPED) \] ([^ ,]*).*/\2/p' "$logs/$name.log" | sort -u) |
    head -n 40 | while read -r case; do
    [ $SECONDS -lt $((part_end - 5)) ] || break
    within 30 "$logs/case.$name.log" "$1" --gtest_filter="$case" && continue
    echo "$case: $(grep -m 1 -E 'CUDA reports|cuBLASLt|Failure|what\(\)' -A 3 "$logs/case.$name.log" | tr -s '\n ' ' ' | cut -c 1-150)" >>"$logs/$name.failed"
    cat "$logs/case.$name.log" >>"$logs/$name.alone.log"
  done
}
check_kernels() {
  local test programs=0 bad=0 file name status
  (for test in "$bin"/test_kernels_*; do
    while [ "$(jobs -rp | wc -l)" -ge 5 ]; do wait -n; done
    run_test "$test" &
  done
  wait) &
  wait $!
  for file in "$logs"/test_kernels_*.status; do
    name=$(basename "$file" .status) status=$(<"$file")
    programs=$((programs + 1))
    [ "$status" != 0 ] || continue
    bad=$((bad + 1))
    if grep -qx 'no time left' "$logs/$name.log"; then fail "$name" 'no time left'; continue; fi
    fail "$name" "failed ($status); alone, $(wc -l <"$logs/$name.failed" 2>/dev/null || echo '?') cases"
    head -n 3 "$logs/$name.failed" 2>/dev/null | indented
  done
  note 'kernel tests that failed' "$bad of $programs"
}

# --- the promise: one rank twice; ranks that share the GPU; killed halfway and resumed; launches recorded or not
small=(--data.kind synthetic --model.width 48 --model.heads 4 --model.layers 2 --ffn.experts 4 --ffn.hidden 96
       --train.batch 64 --train.microbatch 8 --train.schedule constant --compute.device cuda --run.out "$scratch/runs")
ffn=(--ffn.kind moe --ffn.router switch)
train() { # NAME RANKS STEPS KEYS...
  local name=$1 ranks=$2 steps=$3 mpi=(); shift 3
  [ "$ranks" = 1 ] || mpi=(mpirun --quiet --oversubscribe --bind-to none -n "$ranks")
  within 60 "$logs/$name.log" "${mpi[@]}" "$program" train "${small[@]}" "${ffn[@]}" --run.name "$name" \
    --run.steps "$steps" "$@" || { why $? "$logs/$name.log"; return; }
  sed -n 's/^digest //p' "$logs/$name.log"
}
is_digest() { [[ $1 =~ ^[0-9a-f]{32}$ ]]; }
show() { if is_digest "$2"; then note "$@"; else fail "$@"; fi; } # TEXT DIGEST
compare() { # TEXT DIGEST
  if ! is_digest "$2"; then fail "$1" "$2"
  elif [ "$2" = "$reference" ]; then note "$1" equal
  else fail "$1" "DIFFERS: $2"; fi
}
layout() { # DTYPE RANKS EXPERTS
  compare "digest, $1, $2 ranks, experts over $3" \
    "$(train "ranks-$1-$2-$3" "$2" 12 --parallel.experts "$3" --parallel.exchange host --compute.dtype "$1")"
}
# Microbatches whose experts the host has to wait for are not recorded; these are.
with_and_without_graphs() { # NAME KEYS...
  local name=$1 ffn=("${@:2}")
  reference=$(train "graphs-$name-off" 1 12 --compute.dtype bf16 --compute.graphs off)
  show "digest, $name, without graphs" "$reference"
  compare "digest, $name, with graphs" "$(train "graphs-$name" 1 12 --compute.dtype bf16)"
}
check_digests() {
  local overlap experts
  reference=$(train one-rank-bf16 1 12 --compute.dtype bf16)
  show 'digest, bf16, 1 rank' "$reference"
  if is_digest "$reference"; then
    compare 'digest, bf16, 1 rank, again' "$(train again 1 12 --compute.dtype bf16)"
    layout bf16 2 2
    compare 'digest, bf16, 1 rank, NCCL' "$(train nccl-bf16 1 12 --parallel.exchange nccl --compute.dtype bf16)"
    [ "$digests" = short ] || { layout bf16 2 1; layout bf16 4 2; layout bf16 4 4; }
  fi
  with_and_without_graphs balanced --ffn.kind moe --ffn.router random --ffn.granularity balanced
  [ "$digests" = all ] || return 0

  reference=$(train one-rank-fp32 1 12)
  show 'digest, fp32, 1 rank' "$reference"
  for experts in 1 2; do layout fp32 2 $experts; done
  layout fp32 4 4
  compare 'digest, fp32, 1 rank, NCCL' "$(train nccl 1 12 --parallel.exchange nccl)"
  if [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -ge 2 ]; then
    for overlap in off on; do
      compare "digest, fp32, 2 ranks, NCCL, overlap $overlap" \
        "$(train nccl-2-$overlap 2 12 --parallel.experts 2 --parallel.exchange nccl --parallel.overlap $overlap)"
    done
  fi
  train halfway 1 6 >/dev/null
  compare 'digest, fp32, stopped and resumed on 2 ranks' "$(train halfway 2 12 --resume --parallel.exchange host)"
  train to-cpu 1 6 >/dev/null
  show 'digest, fp32, resumed on the CPU' "$(train to-cpu 1 12 --resume --compute.device cpu)"
  show 'digest, TF32, 1 rank' "$(train tf32 1 12 --compute.tf32 true)"
  with_and_without_graphs dense --ffn.kind dense
  with_and_without_graphs batch --ffn.kind moe --ffn.router random --ffn.granularity batch
  with_and_without_graphs expert_choice --ffn.kind moe --ffn.router expert_choice --ffn.capacity_train 1
  with_and_without_graphs hash --ffn.kind moe --ffn.router hash --ffn.hash position
}

# --- speed
bf16=(--compute.dtype bf16 --compute.device cuda)
column() { sed -n "s/^$1  *[0-9.]*  *\([0-9.]*\).*/\1/p" "$2"; }
value() { sed -n "s/^$1  *\([0-9.][0-9.]*\).*/\1/p" "$2"; }
declare -A rate
step() { # NAME TITLE KEYS...
  local name=$1 title=$2 log=$logs/step-$1.log status; shift 2
  within 60 "$log" "$program" bench step "$@" "${bf16[@]}" --steps 20
  status=$?
  rate[$name]=$(column 'training step' "$log")
  [ $status = 0 ] || { fail "$title" "$(why $status "$log")"; return; }
  note "$title" "${rate[$name]}   $(value share "$log")   $(value 'share of that' "$log")"
}
check_speed() {
  local model microbatch
  note 'bench step, bf16' 'images/s   share of products   of a large product'
  for model in dense switch random; do step $model "vit-seed-$model, batch 512" $(study $model); done
  note 'switch, random over dense' "$(ratio "${rate[switch]}" "${rate[dense]}")   $(ratio "${rate[random]}" "${rate[dense]}")"
  note "50,000 images: an epoch's steps, s" "dense $(ratio 50000 "${rate[dense]}")   switch $(ratio 50000 "${rate[switch]}")   random $(ratio 50000 "${rate[random]}")"
  for microbatch in 512 1024 256; do
    step "aligned-$microbatch" "aligned ViT, 768 wide, batch 1024, in ${microbatch}s" $(aligned $microbatch)
  done
}

# --- where steps go
profile() { # NAME TITLE KEYS...
  local log=$logs/profile-$1.log title=$2 status; shift 2
  within 60 "$log" "$program" bench step "$@" "${bf16[@]}" --steps 3 --profile
  status=$?
  [ $status = 0 ] || { fail "where a step of $title goes" "$(why $status "$log")"; return; }
  note "where a step of $title goes" ''
  awk '/ %$/ { print $1, $(NF - 2), "ms", $(NF - 1) " %" }' "$log" | head -n 8 | indented
}
products() { # NAME TITLE KEYS...
  local log=$logs/products-$1.log title=$2 status; shift 2
  within 60 "$log" "$program" bench products "$@" "${bf16[@]}" --steps 5
  status=$?
  [ $status = 0 ] || { fail "bench products, $title" "$(why $status "$log")"; return; }
  note "$title, all products of a microbatch" "$(sed -n 's/^all of a microbatch: //p' "$log")"
}
check_products() {
  local model
  for model in dense switch; do
    profile $model "vit-seed-$model" $(study $model)
    products $model "vit-seed-$model" $(study $model)
  done
  profile aligned 'the aligned ViT' $(aligned 512)
  products aligned 'aligned ViT' $(aligned 512)
}

check_torch() {
  local model log status peer
  note 'PyTorch (torch.compile, SDPA, bf16)' 'images/s   ours over it'
  for model in dense switch random; do
    log=$logs/twin-$model.log
    twin $model "$log"
    status=$?
    if [ $status != 0 ]; then fail "twin of vit-seed-$model" "$(why $status "$log")"; continue; fi
    peer=$(sed -n 's/.*"images_per_second": \([0-9]*\).*/\1/p' "$log")
    note "twin of vit-seed-$model" "$peer   $(ratio "${rate[$model]-}" "$peer")"
  done
}

# --- the rest
kernel_shares() { # MODEL
  local log=$logs/kernels-$1.log status row
  within 60 "$log" "$program" bench kernels $(study "$1") "${bf16[@]}" --steps 5
  status=$?
  [ $status = 0 ] || { fail "bench kernels, vit-seed-$1" "$(why $status "$log")"; return; }
  # NAME SHAPE MICROSECONDS WORK RATE LIMIT SHARE, those first that lose most time
  row='$NF ~ /^[0-9]+\.[0-9][0-9]$/ && NF > 6'
  note "vit-seed-$1, kernels with shares below 0.5" "$(awk "$row && \$NF < 0.5" "$log" | wc -l) of $(awk "$row" "$log" | wc -l)"
  awk "$row && \$NF < 0.5 { print \$(NF - 4) * (1 - \$NF), \$0 }" "$log" | sort -rn | head -n 6 |
    awk '{ text = $2; for (i = 3; i < NF - 4; ++i) text = text " " $i; printf "%s  %9.1f us  %s\n", $NF, $(NF - 4), text }' | indented
}
# Not every driver and sandbox lets it work: one small case shows.
sanitize() {
  local sanitizer name tool log
  sanitizer=$(type -P compute-sanitizer || ls -1 /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  if [ -z "$sanitizer" ] || ! within 10 "$logs/sanitizer.log" "$sanitizer" "$bin/test_kernels_reduce" \
    --gtest_filter="$(cases "$bin/test_kernels_reduce" | head -n 1)"; then
    note 'compute-sanitizer' 'is not here, or does not work here'
    return
  fi
  for name in attention_bf16 routing expert_choice; do
    for tool in memcheck racecheck; do
      log=$logs/$tool-$name.log
      if within 40 "$log" "$sanitizer" --tool $tool --error-exitcode 9 "$bin/test_kernels_$name"; then note "$tool, $name" clean
      else fail "$tool, $name" "$(why $? "$log")"; fi
      grep -m 1 -E '========= (Invalid|Uninit|Barrier|Error|Race|Program hit)' -A 2 "$log" | cut -c 1-150 | indented
    done
  done
}
check_rest() {
  local model graphs
  for model in dense switch; do kernel_shares $model; done
  # Whose launches the host is busy with.
  for model in dense random; do
    for graphs in off auto; do
      step "$model-32-$graphs" "vit-seed-$model, microbatch 32, graphs $graphs" $(study $model 32) --compute.graphs $graphs
    done
  done
  # Whether rows of whole eights are worth padding the study's width for.
  products 304 'vit-seed-dense, 304 wide' $(study dense) --model.width 304 --model.heads 8
  sanitize
}

part kernels 120
part digests "$([ "$digests" = short ] && echo 60 || echo 180)"
[ ${#compiling[@]} = 0 ] || wait "${compiling[@]}"  # it would share the processor with what is timed
part speed 150
part products 90
part torch 100
part rest 150
finish
