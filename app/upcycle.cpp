// switchyard upcycle: a checkpoint of a dense model becomes one of a mixture, ready to be trained.
#include <cmath>

#include "app/commands.hpp"
#include "app/conversion.hpp"
#include "network/convert.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;

constexpr const char* kHelp =
    "switchyard upcycle CHECKPOINT --output NEW.h5 [--noise S] [--config FILE ...] [--KEY VALUE ...]\n\n"
    "Makes the checkpoint of a mixture of that of a dense model (sparse upcycling): each expert is a copy of its\n"
    "block's feed-forward network, gates are as run.seed starts them, the optimiser has seen nothing, and the step is\n"
    "0. Files and keys layer over the checkpoint's configuration: --ffn.experts 4 --ffn.router top_k ... (all keys:\n"
    "`switchyard train --help`). Written to runs/NAME/checkpoint-00000000.h5 it is the beginning of run NAME:\n"
    "switchyard train with the same files and keys, --run.name NAME --resume\n\n"
    "  --output NEW.h5  the checkpoint to write\n"
    "  --overwrite      replace it where it is there already\n"
    "  --noise S        add normal noise to each expert, S times the standard deviation of each weight (default 0)\n\n"
    "Without noise the mixture begins with the dense model's answers where the weights of a token's experts sum to 1\n"
    "(--ffn.renormalise true) and no expert's capacity is exceeded.\n";

struct Request {
  ConversionFiles files;
  double noise = 0;
  Config config;  // of the mixture
};

Request read_request(const World& world, const CommandLine& line) {
  Request request;
  request.files = conversion_files("upcycle", line);
  request.noise = line.options["noise"].as<double>();
  if (!std::isfinite(request.noise) || request.noise < 0)
    fail_usage("--noise {}: it is at least 0, times the standard deviation of each weight", request.noise);
  const Config before = checkpoint_config(request.files.from, "dense",
                                          "upcycle takes a dense model (`switchyard export` makes one of a mixture)");
  Config base = before;
  base.ffn.kind = "moe";
  request.config = config_from(line, base);
  check_mixture(request.files.from, before, request.config, world.size());
  return request;
}

// Of what makes the mixture's first answers others than the dense model's.
void warn_of_difference(const ConversionFiles& files, const Config::Ffn& ffn) {
  std::string why;
  if (ffn.router == "expert_choice")
    why = "with ffn.router = expert_choice not every token meets the same weight";
  else if (router_row(ffn.router).learned && ffn.router != "noisy_top_k" && !ffn.renormalise)
    why = "the weights of a token's experts do not sum to 1: give --ffn.renormalise true";
  else if (ffn.capacity_eval > 0)
    why = fmt::format("ffn.capacity_eval = {} may drop tokens", ffn.capacity_eval);
  if (!why.empty())
    fmt::print(stderr, "switchyard: warning: {} does not begin with the answers of {}: {}\n", files.to, files.from,
               why);
}

}  // namespace

std::string upcycle_help(const Words&) { return kHelp; }

int upcycle_command(World& world, const Words& arguments) {
  po::options_description own;
  add_output_options(own);
  own.add_options()("noise", po::value<double>()->default_value(0), "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own, 1); });
  const auto [files, noise, config] = world.together([&] { return read_request(world, line); });
  world.together([&] { check_output(world, line, files); });
  world.set_timeout(config.parallel.timeout);
  ModelPair models(world, config);
  const io::CheckpointInfo info = models.dense->network().load(world.comm(), files.from);
  upcycle(models.session.context, models.dense->parameters(), models.mixture->parameters(), noise, config.run.seed);
  save_converted(
      world, *models.mixture, config, files.to,
      fmt::format("upcycled from {} after step {}, digest {}, noise {}", files.from, info.step, info.digest, noise));
  if (world.speaks()) warn_of_difference(files, config.ffn);
  return 0;
}

}  // namespace switchyard
