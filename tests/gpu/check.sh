#!/usr/bin/env bash
# check.sh [--bundle PLACE] [--out FOLDER] [--python PROGRAM]
# On a machine with a GPU: conformance of every kernel, equal digests of different layouts, a short training, speed of
# the study's models and of an aligned ViT, and the same steps in PyTorch where PROGRAM has it. Builds build/cuda, or
# takes what tests/gpu/bundle.sh made. Full logs go to --out (default build/gpu-check); ends with a short table.
set -uo pipefail
cd "$(dirname "$0")/../.."
bundle= out=build/gpu-check python=python3
while [ $# -gt 0 ]; do
  case "$1" in
    --bundle) bundle=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
if [ -f "$bundle" ]; then
  mkdir -p "$out/bundle" && tar -C "$out/bundle" -xJf "$bundle" || exit 1
  bundle=$out/bundle
fi
if [ -n "$bundle" ]; then
  bundle=$(cd "$bundle" && pwd)
  bin=$bundle/bin
  export LD_LIBRARY_PATH=$bundle/lib:${LD_LIBRARY_PATH:-} OPAL_PREFIX=$bundle PATH=$bundle/bin:$PATH
else
  cmake --preset cuda && cmake --build build/cuda || exit 1
  bin=$PWD/build/cuda
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
summary=$out/summary.txt
{ nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || echo 'no nvidia-smi'; date -u +%F; } >"$summary"
note() { printf '%-44s %s\n' "$1" "$2" | tee -a "$summary"; }

# --- kernels
failed=0
for test in "$bin"/test_kernels_*; do
  name=$(basename "$test")
  SWITCHYARD_TEST_DEVICE=cuda timeout 120 "$test" --gtest_brief=1 >"$out/$name.log" 2>&1
  status=$?
  [ $status = 0 ] || { failed=$((failed + 1)); note "$name" "failed ($status)"; }
  [ $status != 77 ] || { note 'kernels' 'no GPU: nothing more to check'; exit 1; }
done
note 'kernel tests that failed' "$failed"

# --- the promise: one rank; two and four that share the GPU; killed halfway and resumed
small=(--data.kind synthetic --model.width 48 --model.heads 4 --model.layers 2 --ffn.kind moe --ffn.router switch
       --ffn.experts 4 --ffn.hidden 96 --train.batch 64 --train.microbatch 8 --train.schedule constant
       --compute.device cuda --run.out "$out/runs")
train() { # NAME RANKS STEPS KEYS...
  local name=$1 ranks=$2 steps=$3; shift 3
  timeout 300 mpirun --oversubscribe --bind-to none -n "$ranks" "$bin/switchyard" train "${small[@]}" --run.name "$name" \
    --run.steps "$steps" "$@" >"$out/$name.log" 2>&1 || { echo "failed ($?)"; return; }
  sed -n 's/^digest //p' "$out/$name.log"
}
rm -rf "$out/runs"
same() { [ "$1" = "$reference" ] && echo equal || echo "DIFFERS: $1"; }
reference=$(train one-rank 1 12)
note 'digest, 1 rank' "$reference"
[[ $reference =~ ^[0-9a-f]{32}$ ]] || { note 'training' "failed: see $out/one-rank.log"; exit 1; }
for layout in '2 1' '2 2' '4 2' '4 4'; do
  read -r ranks experts <<<"$layout"
  note "digest, $ranks ranks, experts over $experts" \
    "$(same "$(train "ranks-$ranks-$experts" "$ranks" 12 --parallel.experts "$experts" --parallel.exchange host)")"
done
note 'digest, 1 rank, NCCL' "$(same "$(train nccl 1 12 --parallel.exchange nccl)")"
if [ "$(nvidia-smi -L | wc -l)" -ge 2 ]; then
  note 'digest, 2 ranks, NCCL' "$(same "$(train nccl-2 2 12 --parallel.experts 2 --parallel.exchange nccl)")"
fi
train halfway 1 6 >/dev/null
note 'digest, stopped and resumed on 2 ranks' "$(same "$(train halfway 2 12 --resume --parallel.exchange host)")"

# --- speed: images a second, and the share of the products' own rate
rate() { sed -n 's/^training step  *[0-9.]*  *\([0-9.]*\) .*/\1/p' "$1"; }
share() { sed -n 's/^share  *\([0-9.]*\).*/\1/p' "$1"; }
twin() { # LOG ARGUMENTS...
  local log=$1; shift
  env -u LD_LIBRARY_PATH "$python" -c 'import torch' 2>/dev/null || { echo '-'; return; }
  timeout 300 env -u LD_LIBRARY_PATH "$python" analysis/peers/twin.py "$@" --device cuda --compile --microbatch 512 >"$log" 2>&1 || { echo failed; return; }
  sed -n 's/.*"images_per_second": \([0-9]*\).*/\1/p' "$log"
}
note 'model (batch 512, bf16)' 'images/s   share of products   PyTorch images/s'
for model in dense switch random; do
  keys=(--config "configs/vit-seed-$model.cfg" --train.batch 512 --compute.dtype bf16)
  log=$out/step-$model.log
  timeout 300 "$bin/switchyard" bench step "${keys[@]}" --train.microbatch 512 --compute.device cuda --steps 20 >"$log" 2>&1
  timeout 300 "$bin/switchyard" bench step "${keys[@]}" --train.microbatch 512 --compute.device cuda --steps 3 --profile >"$out/profile-$model.log" 2>&1
  note "vit-seed-$model" "$(rate "$log")   $(share "$log")   $(twin "$out/twin-$model.log" --config "configs/vit-seed-$model.cfg" --train.batch 512 --compute.dtype bf16)"
done
log=$out/step-aligned.log
timeout 300 "$bin/switchyard" bench step --config configs/vit-seed-switch.cfg --model.width 768 \
  --model.heads 12 --ffn.hidden 3072 --ffn.experts 8 --train.batch 1024 --train.microbatch 256 --compute.dtype bf16 \
  --compute.device cuda --steps 10 >"$log" 2>&1
note 'aligned ViT, 768 wide, 8 experts, batch 1024' "$(rate "$log")   $(share "$log")"
echo
cat "$summary"
! grep -qE 'DIFFERS|failed|tests that failed +[1-9]' "$summary"
