// switchyard eval: the test accuracy of a checkpoint, on any number of ranks.
#include "app/commands.hpp"
#include "app/session.hpp"
#include "config/command_line.hpp"
#include "network/network.hpp"

namespace switchyard {

namespace {

constexpr const char* kHelp =
    "switchyard eval CHECKPOINT [--KEY VALUE ...]\n\n"
    "Evaluates the checkpoint's parameters on the test split of its data (and on its validation and training splits\n"
    "where data.validation and run.measure_training ask for it), with the configuration that it was trained with, but\n"
    "for keys given here: --data.path, --parallel.experts, --ffn.inference, ... Keys that change how tokens are "
    "routed\n"
    "count too (--ffn.top_k, --ffn.capacity_eval); those that change parameters are refused. Where data have known\n"
    "clusters, the dispatch entropy is that of the training split.\n"
    "--config FILE layers over the checkpoint's configuration.\n";

// The checkpoint's own configuration under the files and keys of the command line.
Config config_of(const std::string& checkpoint, const CommandLine& line) {
  const io::CheckpointSummary summary = io::describe_checkpoint(checkpoint);
  if (!summary.verifies) fail("{}", summary.problem);
  return config_from(line, parse_stored(summary.info.config, checkpoint));
}

}  // namespace

std::string eval_help(const Words&) { return kHelp; }

int eval_command(World& world, const Words& arguments) {
  const CommandLine line = world.together([&] { return parse_command_line(arguments, {}, 1); });
  const Config config = world.together([&] {
    if (line.positional.empty())
      fail_usage("eval: name a checkpoint: switchyard eval runs/NAME/checkpoint-00000468.h5");
    Config layered = config_of(line.positional[0], line);
    check_ranks(layered, world.size());
    return layered;
  });
  world.set_timeout(config.parallel.timeout);
  DataOptions options = data_options(config);
  options.test_only = options.validation == 0 && !config.run.measure_training;
  const Dataset dataset = world.together([&] { return load_dataset(options); });
  Session session(config, world);
  const ImageShape shape{dataset.height, dataset.width, dataset.channels, dataset.classes};
  const auto network =
      world.together([&] { return std::make_unique<Network>(config, session.context, session.mesh, shape); });
  const Index step = network->load(world.comm(), line.positional[0]).step;
  const Measures measures = world.diverging_alike([&] { return network->measure(dataset, step); });
  const std::optional<double> dispatch_entropy = network->dispatch_entropy(dataset.train, step);
  const std::string digest = network->digest();
  if (!world.speaks()) return 0;
  fmt::print("{} after step {}, {} test samples of {}\n{}\n", line.positional[0], step, dataset.test.count,
             dataset.name, describe_model(config));
  const auto print = [](const char* split, const Evaluation& evaluation) {
    fmt::print("{} accuracy {:.2f} % loss {:.4f}\n", split, evaluation.accuracy, evaluation.loss);
  };
  print("test", measures.test);
  if (measures.validation) print("validation", *measures.validation);
  if (measures.training) print("training", *measures.training);
  if (dispatch_entropy) fmt::print("dispatch entropy {:.4f} nats\n", *dispatch_entropy);
  fmt::print("digest {}\n", digest);
  return 0;
}

}  // namespace switchyard
