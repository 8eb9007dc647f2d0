// The signals by which people, launchers and batch systems ask a program to end: SIGTERM; SIGINT (Ctrl-C); SIGHUP (the
// terminal is closed); SIGUSR1 (what slurm/*.sbatch have SLURM send, and the first that mpirun passes on to its ranks),
// SIGUSR2 (LSF at a job's limit, Grid Engine before it kills one; mpirun passes it on, too); SIGXCPU (a limit on
// processor time: ulimit -t).
#pragma once

#include <csignal>

namespace switchyard {

inline constexpr int kStopSignals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};

// handler: a function, SIG_IGN or SIG_DFL, for all of them. Where SIGHUP is ignored it stays so: nohup asks for that.
void set_stop_handler(void (*handler)(int));

// From here on no signal stops this program, which is about to write its file: a temporary one would stay behind.
void ignore_stop_signals();

}  // namespace switchyard
