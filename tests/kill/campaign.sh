#!/usr/bin/env bash
# campaign.sh [KILLS [SEED]]: kills small trainings so often (200), at random moments, and resumes them on random layouts;
# results must be those of trainings that nobody killed. The same seed makes the same choices, though not the same moments
# of a training. Needs build/release with its tests. ./test.sh does ten kills: tests/app/kill_test.cpp.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=build/release/test_app_kill
[ -x $program ] || { echo "there is no $program: cmake --preset release && cmake --build --preset release" >&2; exit 2; }
export PATH=/usr/bin:/bin:$PATH SWITCHYARD_KILLS=${1:-200}
[ $# -lt 2 ] || export SWITCHYARD_KILL_SEED=$2
exec $program --gtest_filter='KillCampaign.*'
