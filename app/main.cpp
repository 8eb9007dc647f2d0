// switchyard train | eval | inspect | bench | upcycle | export | study
#include <mpi.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>

#include "app/commands.hpp"
#include "app/study.hpp"

namespace {

using switchyard::World;

struct Command {
  const char* name;
  int (*run)(World&, const std::vector<std::string>&);
  const char* summary;
};

constexpr Command kCommands[] = {
    {"train", switchyard::train_command, "train a model, on all ranks that mpirun started"},
    {"eval", switchyard::eval_command, "evaluate a checkpoint on its test data"},
    {"inspect", switchyard::inspect_command, "say what a results, bench or configuration file or a checkpoint holds"},
    {"bench", switchyard::bench_command,
     "time training steps, kernels and exchange against the limits of this machine"},
    {"upcycle", switchyard::upcycle_command, "make a mixture's checkpoint of a dense model's: every expert a copy"},
    {"export", switchyard::export_command, "make a dense model's checkpoint of a mixture's: the mean of its experts"},
};

void print_usage(std::FILE* out) {
  fmt::print(out, "switchyard {}: mixture-of-experts transformers, the same bits however they are run\n\nUsage:\n",
             SWITCHYARD_VERSION);
  for (const Command& command : kCommands) fmt::print(out, "  switchyard {:<8} {}\n", command.name, command.summary);
  fmt::print(out, "  switchyard {:<8} {}\n", "study",
             "plan, run and sum up many trainings over axes; no mpirun before it");
  fmt::print(out,
             "\n`switchyard COMMAND --help` explains one of them. Under MPI: mpirun -n 2 switchyard train --config "
             "FILE\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a loss that is not finite,\n"
             "            75 stopped by a signal after writing a checkpoint (go on with --resume)\n");
}

int run(World& world, const std::vector<std::string>& arguments) {
  const bool asks_help =
      !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help");
  if (asks_help || (!arguments.empty() && arguments[0] == "--version")) {
    if (world.speaks() && asks_help) print_usage(stdout);
    if (world.speaks() && !asks_help) fmt::print("switchyard {}\n", SWITCHYARD_VERSION);
    return 0;
  }
  if (arguments.empty()) {
    if (world.speaks()) print_usage(stderr);
    return static_cast<int>(switchyard::ExitCode::kUsage);
  }
  for (const Command& command : kCommands)
    if (arguments[0] == command.name) return command.run(world, {arguments.begin() + 1, arguments.end()});
  throw switchyard::AgreedError(
      fmt::format("there is no command \"{}\"; there are train, eval, inspect, bench, upcycle, export and study",
                  arguments[0]),
      switchyard::ExitCode::kUsage);
}

// Failures become messages and exit codes.
int guarded_run(World& world, const std::vector<std::string>& arguments) {
  int code = static_cast<int>(switchyard::ExitCode::kFailure);
  try {
    return run(world, arguments);
  } catch (const switchyard::AgreedError& error) {
    if (world.speaks()) fmt::print(stderr, "switchyard: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const switchyard::Error& error) {
    fmt::print(stderr, "switchyard: rank {}: {}\n", world.rank(), error.what());
    code = static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "switchyard: rank {}: there is not enough memory\n", world.rank());
  } catch (const std::exception& error) {
    fmt::print(stderr, "switchyard: rank {}: {}\n", world.rank(), error.what());
  }
  // The other ranks may be waiting for this one.
  std::fflush(nullptr);
  if (world.size() > 1) MPI_Abort(MPI_COMM_WORLD, code);
  return code;
}

// The code, or that of a failure where what was printed did not reach its place.
int after_output(int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return code;
  fmt::print(stderr, "switchyard: standard output could not be written{}; send it to where there is room\n",
             errno != 0 ? fmt::format(" ({})", std::strerror(errno)) : "");
  return code != 0 ? code : static_cast<int>(switchyard::ExitCode::kFailure);
}

}  // namespace

int main(int argc, char** argv) {
  // A write beyond a file-size limit is then an error like any other, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  if (argc > 1 && std::strcmp(argv[1], "train") == 0) switchyard::catch_stop_signals();
  // It starts mpirun itself, which a process of an MPI job may not.
  if (argc > 1 && std::strcmp(argv[1], "study") == 0)
    return after_output(switchyard::study_command({argv + 2, argv + argc}));
  World world(&argc, &argv);
  return after_output(guarded_run(world, {argv + 1, argv + argc}));
}
