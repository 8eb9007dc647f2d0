// The subcommands, one file each. `arguments` are those after the subcommand's name; the result is the exit code. Those
// without a World need no ranks: they run in a process that has not started MPI, which not every place lets start (a
// shell inside srun, for one).
#pragma once

#include <string>
#include <vector>

#include "app/world.hpp"

namespace switchyard {

using Words = std::vector<std::string>;

int train_command(World& world, const Words& arguments);
// From here on the signals of app/stop_signals.hpp ask train_command to stop. Best before MPI starts, which takes a
// while.
void catch_stop_signals();
int eval_command(World& world, const Words& arguments);
int inspect_command(const Words& arguments);
int bench_command(World& world, const Words& arguments);
int upcycle_command(World& world, const Words& arguments);
int export_command(World& world, const Words& arguments);
int study_command(const Words& arguments);
int ranks_command(World& world, const Words& arguments);

// What COMMAND --help prints.
std::string train_help(const Words& arguments);
std::string eval_help(const Words& arguments);
std::string inspect_help(const Words& arguments);
std::string bench_help(const Words& arguments);
std::string upcycle_help(const Words& arguments);
std::string export_help(const Words& arguments);
std::string study_help(const Words& arguments);
std::string ranks_help(const Words& arguments);

}  // namespace switchyard
