// switchyard ranks: whether those that were started are one world.
#include "app/commands.hpp"
#include "core/error.hpp"

namespace switchyard {

std::string ranks_help(const Words&) {
  return "mpirun -n 4 switchyard ranks\n\n"
         "Starts MPI, waits until all ranks are there, and prints how many they are: ranks 4. Where it prints more "
         "than\n"
         "one line the ranks do not find each other, each line is a world of its own: start them by the mpirun of the\n"
         "MPI that this program was built with, or by srun with an --mpi that this MPI speaks (Open MPI: pmix).\n";
}

int ranks_command(World& world, const Words& arguments) {
  world.together([&] {
    if (!arguments.empty()) fail_usage("ranks: \"{}\" is one word too many: it takes none", arguments[0]);
  });
  if (world.speaks()) fmt::print("ranks {}\n", world.size());
  return 0;
}

}  // namespace switchyard
