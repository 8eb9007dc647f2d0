#!/usr/bin/env bash
# Installs what is missing (Debian 12), builds, and trains three small vision transformers on Fashion-MNIST with two
# ranks: dense, switch routing and random routing with four experts. Run again, it only trains.
set -euo pipefail
cd "$(dirname "$0")"
[ $# = 0 ] || { sed -n '2,3s/^# \?//p' "$0" >&2; exit 2; }
source scripts/setup.sh

install_packages "${build_packages[@]}"

say 'Building build/release/switchyard'
[ -f build/release/build.ninja ] || cmake --preset release -DSWITCHYARD_TESTS=OFF
cmake --build --preset release --target switchyard

results=()
for model in dense switch random; do
  command=(scripts/mpirun.sh 2 build/release/switchyard train --config configs/quickstart-$model.cfg --overwrite)
  say "Training $model: ${command[*]}"
  "${command[@]}"
  results+=("runs/quickstart-$model/results.h5")
done

say 'Results'
build/release/switchyard inspect "${results[@]}"
printf '\nResults (HDF5):\n%s\n' "$(printf '  %s\n' "${results[@]}")"
printf 'Checkpoints (HDF5):\n%s\n' "$(printf '  %s\n' runs/quickstart-{dense,switch,random}/checkpoint-*.h5)"
