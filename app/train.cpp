// switchyard train: from a configuration to a results file, checkpoints and a digest.
#include <csignal>

#include "app/commands.hpp"
#include "app/stop_signals.hpp"
#include "app/training_run.hpp"
#include "config/command_line.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;

constexpr const char* kHelp =
    "switchyard train --config FILE [--config FILE ...] [--KEY VALUE ...]\n\n"
    "Trains on all ranks that mpirun started; files go to run.out/run.name/. Later files and keys win.\n\n"
    "  --resume [CHECKPOINT]  go on from the checkpoint, or from the newest one of the run that verifies\n"
    "  --overwrite            replace an earlier run of the same name, also where CHECKPOINT of another run goes on\n\n"
    "SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU: the run finishes its step, writes a checkpoint and\n"
    "exits with code 75. An evaluation that is due, or begun, is made when the run goes on. Under nohup SIGHUP\n"
    "is ignored.\n\n";

volatile std::sig_atomic_t stop_signal = 0, reads_configuration = false;

// A configuration may come from a pipe, in which nothing comes: the signal then ends the program, as it does others.
// Once it is read, data are loaded first; then the run stops, with a checkpoint to go on from.
void on_stop_signal(int signal) {
  stop_signal = signal;
  if (!reads_configuration) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

// For good: the batch system and mpirun may both send the same signal, so a second one says nothing new.
void catch_stop_signals() { set_stop_handler(on_stop_signal); }

std::string train_help(const Words&) {
  std::string routers =
      "\nRouters (ffn.router; each one's equation, paper and defaults: lib/routing/NAME_router.cpp)\n";
  for (const RouterRow& row : router_table()) routers += fmt::format("  {:<14} {}\n", row.name, row.summary);
  return kHelp + help_text() + routers;
}

int train_command(World& world, const Words& arguments) {
  po::options_description own;
  own.add_options()("resume", po::value<std::string>()->implicit_value(""), "")("overwrite", "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own); });
  reads_configuration = true;
  if (stop_signal != 0) on_stop_signal(stop_signal);  // one that came before
  const Config config = world.together([&] {
    const Config checked = config_from(line);
    check_ranks(checked, world.size());
    return checked;
  });
  reads_configuration = false;
  world.set_timeout(config.parallel.timeout);
  const bool resumes = line.options.count("resume") > 0, overwrite = line.options.count("overwrite") > 0;
  const Dataset dataset = world.together([&] {
    if (resumes && overwrite && line.options["resume"].as<std::string>().empty())
      fail_usage(
          "--resume without a file goes on with the run that --overwrite would remove: give one of them, or name a "
          "checkpoint of another run: --resume FILE --overwrite");
    return load_dataset(data_options(config));
  });
  TrainingRun run(world, config, dataset, stop_signal);
  if (resumes)
    run.resume(line.options["resume"].as<std::string>(), overwrite);
  else
    run.start(overwrite);
  return run.run();
}

}  // namespace switchyard
