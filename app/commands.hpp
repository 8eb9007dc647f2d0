// The subcommands, one file each. `arguments` are those after the subcommand's name; the result is the exit code.
#pragma once

#include <string>
#include <vector>

#include "app/world.hpp"

namespace switchyard {

int train_command(World& world, const std::vector<std::string>& arguments);
// From here on the signals of app/stop_signals.hpp ask train_command to stop. Best before MPI starts, which takes a
// while.
void catch_stop_signals();
int eval_command(World& world, const std::vector<std::string>& arguments);
int inspect_command(World& world, const std::vector<std::string>& arguments);
int bench_command(World& world, const std::vector<std::string>& arguments);
int upcycle_command(World& world, const std::vector<std::string>& arguments);
int export_command(World& world, const std::vector<std::string>& arguments);

}  // namespace switchyard
