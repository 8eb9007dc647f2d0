#!/usr/bin/env bash
# Installs what the tests need, builds, runs every test; exits non-zero where one fails or none ran.
#   ./test.sh         every test of the release preset; where there is nvcc, it also compiles and links the cuda preset
#   ./test.sh --asan  under the address and undefined-behaviour sanitizers, the tests that need no MPI; no fuzzing
set -euo pipefail
cd "$(dirname "$0")"
source scripts/setup.sh

case "${1:-}" in
  '') preset=release selection=() ;;
  --asan) preset=asan selection=(--label-exclude 'mpi|fuzz') ;;
  *) sed -n '2,4s/^# \?//p' "$0" >&2; exit 2 ;;
esac

install_packages "${build_packages[@]}" "${test_packages[@]}"
(install_packages "${slurm_packages[@]}") || say 'Without SLURM the tests of slurm/ are skipped'
(install_packages "${fuzz_packages[@]}") || say 'Without Clang the tests of tests/fuzz/ are skipped'

say "Building build/$preset"
cmake --preset "$preset" -DSWITCHYARD_TESTS=ON
cmake --build --preset "$preset"

# The tests above see nothing of CUDA. nvcc is often installed, but not on the path. One kind of GPU is enough to see
# that all compiles; the program of build/cuda links every kernel.
nvcc=$(type -P nvcc || ls -1 /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if [ "$preset" = release ] && [ -n "$nvcc" ]; then
  say "Building build/cuda/switchyard with $nvcc"
  export CUDACXX=$nvcc
  if cmake --preset cuda -DSWITCHYARD_TESTS=OFF -DCMAKE_CUDA_ARCHITECTURES=90; then
    cmake --build --preset cuda --target switchyard
  else
    say "CUDA kernels are not compiled: $nvcc does not serve"
  fi
fi

say 'Testing'
report=$PWD/build/$preset/tests.xml
rm -f "$report"
status=0
# Twice as many as there are cores: tests under mpirun wait for one another's ranks, those of job scripts for SLURM.
ctest --preset "$preset" --parallel $((2 * $(nproc))) "${selection[@]}" --no-tests=error --output-junit "$report" || status=$?

# ctest's own counts: attributes of the report's first element.
count() { sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p; /<testcase/q" "$report" | head -n 1; }
if [ -f "$report" ]; then
  failed=$(count failures) skipped=$(($(count skipped) + $(count disabled)))
  printf '\n%d passed, %d failed, %d skipped\n' $(($(count tests) - failed - skipped)) "$failed" "$skipped"
fi
exit $status
