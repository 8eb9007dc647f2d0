#!/usr/bin/env bash
# run.sh SECONDS [FUZZER...]: fuzzes the readers of files, each for so long, two at a time: config, study, idx, cifar,
# hdf5, checkpoint, results, or those named. docs/robustness.md says what they do and what came of it.
#   tests/fuzz/run.sh 10                      what ./test.sh does; 0 only builds and makes seeds
#   tests/fuzz/run.sh $((8 * 3600)) results   for hours
# RUNS=N ends each fuzzer after so many inputs; SEED=N draws the same inputs each time, as ./test.sh does.
#
# Builds build/fuzz with Debian's clang, and goes on from the inputs of earlier runs in build/fuzz/corpus. Seeds are
# made with the program of build/release, or the one in SWITCHYARD_PROGRAM. Exit codes: 1, a finding: its input is in
# build/fuzz/findings; 77, skipped: something is missing here.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/python.sh
skip() { echo "skipped: $*"; exit 77; }
[[ ${1:-} =~ ^[0-9]+$ ]] || { sed -n '2,10s/^# \?//p' tests/fuzz/run.sh >&2; exit 2; }
seconds=$1; shift
fuzzers=("$@")
[ $# -gt 0 ] || fuzzers=(config study idx cifar hdf5 checkpoint results)

export PATH=/usr/bin:/bin:$PATH
program=${SWITCHYARD_PROGRAM:-build/release/switchyard}
build=build/fuzz
[ -x "$program" ] || skip "the seeds need $program: cmake --preset release && cmake --build build/release"
type -P clang++ >/dev/null || skip 'there is no clang++ (Debian packages clang and libclang-rt-14-dev)'
echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
  clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null 2>/dev/null ||
  skip 'clang++ has no libFuzzer (Debian package libclang-rt-14-dev)'
python=$(find_python h5py numpy) || skip 'no python3 has h5py (Debian package python3-h5py)'

# One at a time, whoever else runs this script.
mkdir -p $build
(
  flock 9
  cmake --preset fuzz && cmake --build --preset fuzz
  if [ ! -d $build/seeds ] || [ "$program" -nt $build/seeds ] || [ tests/fuzz/seeds.py -nt $build/seeds ]; then
    rm -rf $build/seeds
    "$python" -B tests/fuzz/seeds.py "$program" $build/seeds
  fi
) 9>$build/lock >$build/build.log 2>&1 || { cat $build/build.log >&2; exit 1; }
[ "$seconds" -gt 0 ] || exit 0

work=$(mktemp -d -p /dev/shm switchyard-fuzz-XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$work"' EXIT

fuzz() {
  local name=$1 findings=$build/findings/$1 log=$build/$1.log dictionary=() status=0 last
  mkdir -p $build/corpus/"$name" "$findings" "$work/$name"
  [ ! -f $build/seeds/"$name".dict ] || dictionary=(-dict=$build/seeds/"$name".dict)
  TMPDIR=$work/$name $build/fuzz_"$name" -max_total_time="$seconds" -runs="${RUNS:--1}" -seed="${SEED:-0}" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$findings/" "${dictionary[@]}" \
    $build/corpus/"$name" $build/seeds/"$name" >"$log" 2>&1 || status=$?
  last=$(grep -E '^#[0-9]+[[:space:]].*cov: ' "$log" | tail -n 1 || true)
  printf '%-10s %9s inputs  %5s edges  %s\n' "$name" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)" \
    "$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' <<<"$last")" \
    "$(sed -n 's/^stat::inputs_left_out: /left out: /p' "$log" | tail -n 1)"
  [ $status = 0 ] || report "$name" "$log"
  return $status
}

# The end of the log, and the input again, with the names of functions.
report() {
  local name=$1 input
  input=$(sed -n 's/.*Test unit written to //p' "$2" | tail -n 1)
  tail -n 20 "$2"
  if [ -z "$input" ]; then echo "$name: ended without a finding, before its time: $2"; return; fi
  echo "$name: a finding: again with: $build/fuzz_$name $input"
  FUZZ_HERE=1 ASAN_OPTIONS=symbolize=1:allow_addr2line=1 TMPDIR=$work/$name timeout 30 $build/fuzz_"$name" "$input" 2>&1 | head -n 40 || true
}

for name in "${fuzzers[@]}"; do
  [ -x $build/fuzz_"$name" ] || { echo "there is no fuzzer $name: take some of config, study, idx, cifar, hdf5, checkpoint, results" >&2; exit 2; }
  while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
  { fuzz "$name" || touch "$work/failed"; } &
done
wait
[ ! -e "$work/failed" ]
