#!/usr/bin/env bash
# check.sh [--bundle PLACE] [--out FOLDER [--overwrite]] [--python PROGRAM] [--seconds N] [--only PARTS]
# On a machine with a GPU: conformance of every kernel, equal digests of different layouts, a short training, speed of
# the study's models, of an aligned ViT and of every kernel, and the same steps in PyTorch where PROGRAM has it. Builds
# build/cuda, or takes what tests/gpu/bundle.sh made. A part that fails does not keep the others from running; what has
# no time left after N seconds (default 540, the build not among them) is left out, and counted. PARTS: some of
# kernels,digests,speed,torch. Full logs go to --out (default build/gpu-check), a folder that is new or empty; with
# --overwrite they replace those of an earlier check. Ends with a short table, and with an error where anything failed.
set -uo pipefail
here=$PWD
cd "$(dirname "$0")/../.."
usage() { sed -n '2,8s/^# //p' "$0"; }
refuse() { echo "check.sh: $*" >&2; usage >&2; exit 2; }
from_here() { case "$1" in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
bundle= out= overwrite=no python=python3 seconds=540 parts=kernels,digests,speed,torch
while [ $# -gt 0 ]; do
  case "$1" in
    --help) usage; exit 0 ;;
    --overwrite) overwrite=yes; shift; continue ;;
    --bundle | --out | --python | --seconds | --only) [ -n "${2:-}" ] || refuse "$1: a value is missing" ;;
    *) refuse "$1: there is no such option" ;;
  esac
  case "$1" in
    --bundle) bundle=$(from_here "$2") ;;
    --out) out=$(from_here "$2") ;;
    --python) python=$2 ;;
    --seconds) seconds=$2 ;;
    --only) parts=$2 ;;
  esac
  shift 2
done
[[ $seconds =~ ^[0-9]+$ ]] || refuse "--seconds $seconds: give a whole number"
for part in ${parts//,/ }; do
  case "$part" in
    kernels | digests | speed | torch) ;;
    *) refuse "--only $part: take some of kernels,digests,speed,torch" ;;
  esac
done
wants() { [[ ,$parts, == *,$1,* ]]; }
[ -z "$bundle" ] || [ -e "$bundle" ] || refuse "--bundle $bundle: there is no such file or folder"
if [ -n "$out" ] && [ -n "$(ls -A "$out" 2>/dev/null)" ]; then
  [ $overwrite = yes ] || refuse "--out $out: is not empty; replace an earlier check's logs (--overwrite), or choose another"
  [ -f "$out/summary.txt" ] || refuse "--out $out: holds no check's summary.txt, and --overwrite replaces nothing else"
fi
out=${out:-$PWD/build/gpu-check}
[ -n "$bundle" ] || nvidia-smi -L >/dev/null 2>&1 || { echo 'check.sh: nvidia-smi finds no GPU: nothing is built' >&2; exit 1; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
summary=$out/summary.txt
: >"$summary"
own_libraries=${LD_LIBRARY_PATH-}
if [ -f "$bundle" ]; then
  unpacked=$out/check.bundle
  rm -rf "$unpacked"
  mkdir -p "$unpacked"
  if type -P xz >/dev/null; then tar -C "$unpacked" -xJf "$bundle"; else "$python" -m tarfile -e "$bundle" "$unpacked"; fi || exit 1
  bundle=$unpacked
fi
if [ -n "$bundle" ]; then
  bundle=$(cd "$bundle" && pwd)
  bin=$bundle/bin
  export LD_LIBRARY_PATH=$bundle/lib${own_libraries:+:$own_libraries} OPAL_PREFIX=$bundle PATH=$bundle/bin:$PATH
else
  cmake --preset cuda && cmake --build build/cuda || exit 1
  bin=$PWD/build/cuda
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# One machine, perhaps a bare one: without ssh Open MPI finds no launcher, and not every sandbox lets ranks read each
# other's memory.
export OMPI_MCA_plm=isolated OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export PMIX_MCA_pcompress_base_silence_warning=1
end=$((SECONDS + seconds))
failures=0 left_out=0
note() { printf '%-44s %s\n' "$1" "$2" | tee -a "$summary"; }
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
  note 'seconds, logs' "$SECONDS, $out"
  [ "$failures" = 0 ] || exit 1
  exit 0
}
# LIMIT LOG COMMAND...: at most so many seconds.
within() {
  local limit=$1 log=$2 left=$((end - SECONDS)); shift 2
  [ "$left" -gt 3 ] || { echo 'no time left' >"$log"; return 124; }
  timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$log" 2>&1
}
# STATUS LOG: what a part said of its failure
why() {
  local said
  [ "$1" != 124 ] || grep -qx 'no time left' "$2" || { echo 'failed: not done within its time'; return; }
  said=$(grep '^switchyard: ' "$2" | grep -vm 1 warning || grep -vE '^[ -]*$' "$2" | tail -n 1)
  echo "failed ($1): ${said:0:180}"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a > 0 && b > 0) printf "%.2f", a / b; else print "-" }'; }

note "$(date -u +%F)" "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
# CUDA's own libraries may lie where the loader does not look.
missing() { ldd "$bin/switchyard" 2>/dev/null | awk '/not found/ { print $1 }'; }
for library in $(missing); do
  found=$(find -L /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
    $("$python" -c 'import site; print(*[p + "/nvidia" for p in site.getsitepackages()])' 2>/dev/null) \
    -name "$library" 2>/dev/null | head -n 1)
  [ -z "$found" ] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "$found")
done
[ -z "$(missing)" ] || { fail 'shared libraries that nothing has' "$(missing | tr '\n' ' ')"; finish; }
within 60 "$out/ranks.log" "$bin/switchyard" ranks
status=$?
[ $status != 132 ] || { fail 'program' "built for another processor: configure with -DSWITCHYARD_NATIVE=OFF"; finish; }
[ $status = 0 ] || { fail 'program' "$(why $status "$out/ranks.log")"; finish; }

within 60 "$out/gpu.log" env SWITCHYARD_TEST_DEVICE=cuda "$bin/test_kernels_reduce"
[ $? != 77 ] || { fail 'GPU' 'none: nothing more to check'; finish; }
# PyTorch compiles for minutes: what it keeps of that is made while others check.
twin() { # MODEL LOG OPTIONS...
  local model=$1 log=$2; shift 2
  within 180 "$log" env LD_LIBRARY_PATH="$own_libraries" "$python" analysis/peers/twin.py $(study "$model") \
    --compute.dtype bf16 --device cuda --compile --microbatch 512 "$@"
}
study() { echo --config "configs/vit-seed-$1.cfg" --train.batch 512 --train.microbatch "${2:-512}"; } # MODEL [MICROBATCH]
if wants torch && within 60 "$out/torch.log" env LD_LIBRARY_PATH="$own_libraries" "$python" -c 'import torch'; then
  for model in dense switch random; do twin $model "$out/twin-$model-first.log" --steps 1 --warmup 1 & done
elif wants torch; then
  note 'PyTorch' "$python has none"
  parts=${parts/torch/}
fi

# --- kernels. What fails is run once more, each case for itself, in the first minutes: a GPU that saw one error does
# nothing more for the process that made it.
cases_end=$((SECONDS + 150))
export SWITCHYARD_TEST_DEVICE=cuda
cases() { "$1" --gtest_list_tests | awk '/^[^ ]/ { suite = $1 } /^ / { print suite $1 }' | sort; }
run_test() { # PROGRAM
  local name status; name=$(basename "$1")
  within 120 "$out/$name.log" "$1"
  status=$?
  echo $status >"$out/$name.status"
  [ $status != 0 ] && [ $status != 77 ] || return
  : >"$out/$name.failed"
  comm -23 <(cases "$1") <(sed -nE 's/^\[ +(OK|SKIPPED) \] ([^ ,]*).*/\2/p' "$out/$name.log" | sort -u) |
    head -n 40 | while read -r case; do
    [ $SECONDS -lt $cases_end ] && [ $SECONDS -lt $((end - 5)) ] || break
    within 30 "$out/case.$name.log" "$1" --gtest_filter="$case" && continue
    echo "$case: $(grep -m 1 -E 'CUDA reports|cuBLASLt|Failure|what\(\)' -A 3 "$out/case.$name.log" | tr -s '\n ' ' ' | cut -c 1-150)" >>"$out/$name.failed"
    cat "$out/case.$name.log" >>"$out/$name.alone.log"
  done
}
check_kernels() {
  local test programs=0 bad=0 file name status case
  rm -f "$out"/*.failed "$out"/*.alone.log
  (for test in "$bin"/test_kernels_*; do
    while [ "$(jobs -rp | wc -l)" -ge 4 ]; do wait -n; done
    run_test "$test" &
  done
  wait)
  for file in "$out"/test_kernels_*.status; do
    name=$(basename "$file" .status) status=$(<"$file")
    programs=$((programs + 1))
    [ "$status" != 0 ] || continue
    bad=$((bad + 1))
    fail "$name" "failed ($status); alone, $(wc -l <"$out/$name.failed" 2>/dev/null || echo '?') cases"
    head -n 3 "$out/$name.failed" 2>/dev/null | sed 's/^/    /' | tee -a "$summary"
    case=$(sed -n '1s/: .*//p' "$out/$name.failed" 2>/dev/null)
    type -P compute-sanitizer >/dev/null && [ -n "$case" ] && [ $bad -le 3 ] || continue
    within 60 "$out/$name.sanitizer.log" compute-sanitizer "$bin/$name" --gtest_filter="$case"
    grep -m 1 -E '========= (Invalid|Uninit|Barrier|Program hit)' -A 2 "$out/$name.sanitizer.log" | cut -c 1-150 | sed 's/^/    /' | tee -a "$summary"
  done
  note 'kernel tests that failed' "$bad of $programs"
}
if wants kernels; then check_kernels; fi

# --- the promise: one rank; two and four that share the GPU; killed halfway and resumed
small=(--data.kind synthetic --model.width 48 --model.heads 4 --model.layers 2 --ffn.experts 4 --ffn.hidden 96
       --train.batch 64 --train.microbatch 8 --train.schedule constant --compute.device cuda --run.out "$out/check.runs")
ffn=(--ffn.kind moe --ffn.router switch)
train() { # NAME RANKS STEPS KEYS...
  local name=$1 ranks=$2 steps=$3 mpi=(); shift 3
  [ "$ranks" = 1 ] || mpi=(mpirun --quiet --oversubscribe --bind-to none -n "$ranks")
  within 60 "$out/$name.log" "${mpi[@]}" "$bin/switchyard" train "${small[@]}" "${ffn[@]}" --run.name "$name" \
    --run.steps "$steps" "$@" || { why $? "$out/$name.log"; return; }
  sed -n 's/^digest //p' "$out/$name.log"
}
rm -rf "$out/check.runs"
is_digest() { [[ $1 =~ ^[0-9a-f]{32}$ ]]; }
show() { if is_digest "$2"; then note "$@"; else fail "$@"; fi; } # TEXT DIGEST
compare() { # TEXT DIGEST
  if ! is_digest "$2"; then fail "$1" "$2"
  elif [ "$2" = "$reference" ]; then note "$1" equal
  else fail "$1" "DIFFERS: $2"; fi
}
check_digests() {
  local dtype layout ranks experts
  for dtype in fp32 bf16; do
    reference=$(train "one-rank-$dtype" 1 12 --compute.dtype $dtype)
    show "digest, $dtype, 1 rank" "$reference"
    is_digest "$reference" || continue
    for layout in '2 1' '2 2' '4 2' '4 4'; do
      read -r ranks experts <<<"$layout"
      compare "digest, $dtype, $ranks ranks, experts over $experts" \
        "$(train "ranks-$dtype-$ranks-$experts" "$ranks" 12 --parallel.experts "$experts" --parallel.exchange host --compute.dtype $dtype)"
    done
    [ $dtype = fp32 ] || continue
    compare 'digest, 1 rank, NCCL' "$(train nccl 1 12 --parallel.exchange nccl)"
    if [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -ge 2 ]; then
      for overlap in off on; do
        compare "digest, 2 ranks, NCCL, overlap $overlap" \
          "$(train nccl-2-$overlap 2 12 --parallel.experts 2 --parallel.exchange nccl --parallel.overlap $overlap)"
      done
    fi
    train halfway 1 6 >/dev/null
    compare 'digest, stopped and resumed on 2 ranks' "$(train halfway 2 12 --resume --parallel.exchange host)"
    train to-cpu 1 6 >/dev/null
    show 'digest, resumed on the CPU' "$(train to-cpu 1 12 --resume --compute.device cpu)"
    show 'digest, 1 rank, TF32' "$(train tf32 1 12 --compute.tf32 true)"
  done
  # Microbatches whose experts the host has to wait for are not recorded; these are.
  local name keys
  local -a ffn
  for name in dense balanced batch expert_choice hash; do
    case $name in
      dense) keys='--ffn.kind dense' ;;
      balanced | batch) keys="--ffn.kind moe --ffn.router random --ffn.granularity $name" ;;
      expert_choice) keys='--ffn.kind moe --ffn.router expert_choice --ffn.capacity_train 1' ;;
      hash) keys='--ffn.kind moe --ffn.router hash --ffn.hash position' ;;
    esac
    read -ra ffn <<<"$keys"
    reference=$(train "graphs-$name-off" 1 12 --compute.dtype bf16 --compute.graphs off)
    show "digest, $name, without graphs" "$reference"
    compare "digest, $name, with graphs" "$(train "graphs-$name" 1 12 --compute.dtype bf16)"
  done
}
if wants digests; then check_digests; fi

# --- speed
column() { sed -n "s/^$1  *[0-9.]*  *\([0-9.]*\).*/\1/p" "$2"; }
value() { sed -n "s/^$1  *\([0-9.][0-9.]*\).*/\1/p" "$2"; }
declare -A rate
step() { # NAME TITLE KEYS...
  local name=$1 title=$2 log=$out/step-$1.log; shift 2
  within 100 "$log" "$bin/switchyard" bench step "$@" --compute.dtype bf16 --compute.device cuda --steps 20
  local status=$?
  rate[$name]=$(column 'training step' "$log")
  [ $status = 0 ] || { fail "$title" "$(why $status "$log")"; return; }
  note "$title" "${rate[$name]}   $(value share "$log")   $(value 'share of that' "$log")"
}
profile() { # NAME KEYS...
  local log=$out/profile-$1.log; shift
  within 60 "$log" "$bin/switchyard" bench step "$@" --compute.dtype bf16 --compute.device cuda --steps 3 --profile
  local status=$?
  [ $status = 0 ] || { fail 'bench step --profile' "$(why $status "$log")"; return; }
  awk '/ %$/ { print "    " $1, $(NF - 2), "ms", $(NF - 1) " %" }' "$log" | head -n 5 | tee -a "$summary"
}
check_speed() {
  local model graphs log status row
  note 'bench step, bf16' 'images/s   share of products   of a large product'
  for model in dense switch random; do
    step $model "vit-seed-$model, batch 512" $(study $model)
  done
  # Whose launches the host is busy with.
  for model in dense random; do
    for graphs in off auto; do
      step "$model-32-$graphs" "vit-seed-$model, microbatch 32, graphs $graphs" $(study $model 32) --compute.graphs $graphs
    done
  done
  step aligned 'aligned ViT, 768 wide, 8 experts, batch 1024' --config configs/vit-seed-switch.cfg --model.width 768 \
    --model.heads 12 --ffn.hidden 3072 --ffn.experts 8 --train.batch 1024 --train.microbatch 256
  note "50,000 images: an epoch's steps, s" "dense $(ratio 50000 "${rate[dense]}")   switch $(ratio 50000 "${rate[switch]}")   random $(ratio 50000 "${rate[random]}")"
  note 'switch, random over dense' "$(ratio "${rate[switch]}" "${rate[dense]}")   $(ratio "${rate[random]}" "${rate[dense]}")"
  for model in dense switch; do
    note "where a step of vit-seed-$model goes" ''
    profile $model $(study $model)
    log=$out/kernels-$model.log
    within 100 "$log" "$bin/switchyard" bench kernels $(study $model) --compute.dtype bf16 --compute.device cuda --steps 5
    status=$?
    [ $status = 0 ] || fail "bench kernels, vit-seed-$model" "$(why $status "$log")"
    # NAME SHAPE MICROSECONDS WORK RATE LIMIT SHARE, those first that lose most time
    row='$NF ~ /^[0-9]+\.[0-9][0-9]$/ && NF > 6'
    note "vit-seed-$model, kernels with shares below 0.5" "$(awk "$row && \$NF < 0.5" "$log" | wc -l) of $(awk "$row" "$log" | wc -l)"
    awk "$row && \$NF < 0.5 { print \$(NF - 4) * (1 - \$NF), \$0 }" "$log" | sort -rn | head -n 6 |
      awk '{ text = $2; for (i = 3; i < NF - 4; ++i) text = text " " $i; printf "    %s  %9.1f us  %s\n", $NF, $(NF - 4), text }' | tee -a "$summary"
    log=$out/products-$model.log
    within 60 "$log" "$bin/switchyard" bench products $(study $model) --compute.dtype bf16 --compute.device cuda --steps 5
    status=$?
    [ $status = 0 ] || fail "bench products, vit-seed-$model" "$(why $status "$log")"
    note "vit-seed-$model, all products of a step" "$(sed -n 's/^all of a microbatch: //p' "$log")"
  done
  # Whether rows of whole eights are worth padding the study's width for.
  log=$out/products-304.log
  within 60 "$log" "$bin/switchyard" bench products $(study dense) --model.width 304 --model.heads 8 \
    --compute.dtype bf16 --compute.device cuda --steps 5
  status=$?
  [ $status = 0 ] || fail 'bench products, 304 wide' "$(why $status "$log")"
  note 'the same of vit-seed-dense, 304 wide' "$(sed -n 's/^all of a microbatch: //p' "$log")"
}
wait
if wants speed; then check_speed; fi

check_torch() {
  local model log status peer
  note 'PyTorch (torch.compile, SDPA, bf16)' 'images/s   ours over it'
  for model in dense switch random; do
    log=$out/twin-$model.log
    twin $model "$log"
    status=$?
    if [ $status != 0 ]; then fail "twin of vit-seed-$model" "$(why $status "$log")"; continue; fi
    peer=$(sed -n 's/.*"images_per_second": \([0-9]*\).*/\1/p' "$log")
    note "twin of vit-seed-$model" "$peer   $(ratio "${rate[$model]-}" "$peer")"
  done
}
if wants torch; then check_torch; fi
finish
