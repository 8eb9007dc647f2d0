// switchyard train | eval | inspect | bench | upcycle | export | study | ranks
#include <mpi.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "app/commands.hpp"
#include "config/keys.hpp"
#include "core/error.hpp"

namespace {

using switchyard::ExitCode;
using switchyard::Words;
using switchyard::World;

// It runs either on all ranks, or alone: then MPI is not started.
struct Command {
  const char* name;
  std::string (*help)(const Words& arguments);
  int (*on_ranks)(World& world, const Words& arguments);
  int (*alone)(const Words& arguments);
  const char* summary;
};

constexpr Command kCommands[] = {
    {"train", switchyard::train_help, switchyard::train_command, nullptr,
     "train a model, on all ranks that mpirun started"},
    {"eval", switchyard::eval_help, switchyard::eval_command, nullptr, "evaluate a checkpoint on its test data"},
    {"inspect", switchyard::inspect_help, nullptr, switchyard::inspect_command,
     "say what a results, bench or configuration file or a checkpoint holds"},
    {"bench", switchyard::bench_help, switchyard::bench_command, nullptr,
     "time training steps, kernels and exchange against the limits of this machine"},
    {"upcycle", switchyard::upcycle_help, switchyard::upcycle_command, nullptr,
     "make a mixture's checkpoint of a dense model's: every expert a copy"},
    {"export", switchyard::export_help, switchyard::export_command, nullptr,
     "make a dense model's checkpoint of a mixture's: the mean of its experts"},
    {"study", switchyard::study_help, nullptr, switchyard::study_command,
     "plan, run and sum up many trainings over axes; no mpirun before it"},
    {"ranks", switchyard::ranks_help, switchyard::ranks_command, nullptr,
     "count the ranks that mpirun or srun starts: do they find each other?"},
};

void print_usage(std::FILE* out) {
  fmt::print(out, "switchyard {}: mixture-of-experts transformers, the same bits however they are run\n\nUsage:\n",
             SWITCHYARD_VERSION);
  for (const Command& command : kCommands) fmt::print(out, "  switchyard {:<8} {}\n", command.name, command.summary);
  fmt::print(out,
             "\n`switchyard COMMAND --help` explains one of them. Under MPI: mpirun -n 2 switchyard train --config "
             "FILE\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 a loss that is not finite,\n"
             "            75 stopped by a signal after writing a checkpoint (go on with --resume)\n");
}

const Command* find_command(const std::string& name) {
  for (const Command& command : kCommands)
    if (name == command.name) return &command;
  return nullptr;
}

[[noreturn]] void refuse_command(const std::string& name) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  switchyard::fail_usage("there is no command {}{} There are {}.", switchyard::in_quotes(name),
                         switchyard::suggestion(name, names), switchyard::joined(names, ", "));
}

bool asks_help(const Words& arguments) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [](const std::string& word) { return word == "--help" || word == "-h"; });
}

// Where the terminal has gone there is nobody to tell.
void tell(const std::string& message) { std::fputs(("switchyard: " + message + "\n").c_str(), stderr); }

// What to say of the exception that is being handled, and its exit code.
std::pair<std::string, ExitCode> failure() {
  try {
    throw;
  } catch (const switchyard::Error& error) {
    return {error.what(), error.code()};
  } catch (const std::bad_alloc&) {
    return {"there is not enough memory", ExitCode::kFailure};
  } catch (const std::exception& error) {
    return {error.what(), ExitCode::kFailure};
  }
}

// Failures become messages and exit codes.
int run_on_ranks(World& world, const Command& command, const Words& arguments) {
  try {
    return command.on_ranks(world, arguments);
  } catch (const switchyard::AgreedError& error) {
    if (world.speaks()) tell(error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception&) {
    const auto [message, code] = failure();
    tell(fmt::format("rank {}: {}", world.rank(), message));
    // The other ranks may be waiting for this one.
    std::fflush(nullptr);
    if (world.size() > 1) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
    return static_cast<int>(code);
  }
}

int run_alone(const Command* command, const Words& words) {
  if (words.empty()) {
    print_usage(stderr);
    return static_cast<int>(ExitCode::kUsage);
  }
  if (words[0] == "--version") {
    fmt::print("switchyard {}\n", SWITCHYARD_VERSION);
    return 0;
  }
  if (!command && (words[0] == "help" || asks_help({words[0]}))) {
    print_usage(stdout);
    return 0;
  }
  try {
    if (!command) refuse_command(words[0]);
    const Words arguments(words.begin() + 1, words.end());
    if (!asks_help(arguments)) return command->alone(arguments);
    fmt::print("{}", command->help(arguments));
    return 0;
  } catch (const std::exception&) {
    const auto [message, code] = failure();
    tell(message);
    return static_cast<int>(code);
  }
}

// The code, or that of a failure where what was printed did not reach its place.
int after_output(int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return code;
  tell(fmt::format("standard output could not be written{}; send it to where there is room",
                   errno != 0 ? fmt::format(" ({})", std::strerror(errno)) : ""));
  return code != 0 ? code : static_cast<int>(switchyard::ExitCode::kFailure);
}

}  // namespace

int main(int argc, char** argv) {
  // A write beyond a file-size limit is then an error like any other, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  const Words words(argv + 1, argv + argc);
  const Command* const command = words.empty() ? nullptr : find_command(words[0]);
  if (command && command->on_ranks && !asks_help(words)) {
    if (command->on_ranks == switchyard::train_command) switchyard::catch_stop_signals();
    World world(&argc, &argv);
    return after_output(run_on_ranks(world, *command, {words.begin() + 1, words.end()}));
  }
  // Where a launcher started several processes, one of them does it for all.
  return switchyard::rank_by_launcher() == 0 ? after_output(run_alone(command, words)) : 0;
}
