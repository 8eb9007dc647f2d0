#!/usr/bin/env bash
# mpirun.sh RANKS COMMAND...: mpirun on this one machine, with more ranks than cores where asked, and as root where that
# is who runs it (containers).
set -euo pipefail
ranks=$1; shift
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
# 60 s between mpirun's SIGTERM and SIGKILL: a run that is told to stop writes its checkpoint first.
exec mpirun --oversubscribe --bind-to none --mca btl self,vader --mca odls_base_sigkill_timeout 60 -n "$ranks" "$@"
