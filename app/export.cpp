// switchyard export: a checkpoint of a mixture becomes one of a dense model.
#include "app/commands.hpp"
#include "app/conversion.hpp"
#include "config/keys.hpp"
#include "network/convert.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;

constexpr const char* kHelp =
    "switchyard export CHECKPOINT --merge average --output DENSE.h5 [--KEY VALUE ...]\n\n"
    "Makes the checkpoint of a dense model of that of a mixture: each feed-forward network is the mean of its block's\n"
    "experts, gates are left out, the optimiser has seen nothing, and the step is 0. Evaluating it gives what the\n"
    "mixture gives with ffn.inference = average, to the bit. Keys that do not change the model may be given again:\n"
    "--data.path, --parallel.experts, ...\n\n"
    "  --merge average   how experts become one network: average is the one way there is\n"
    "  --output DENSE.h5 the checkpoint to write\n"
    "  --overwrite       replace it where it is there already\n";

void check_merge(const CommandLine& line) {
  const auto merge = line.options["merge"].as<std::string>();
  if (merge.empty()) fail_usage("export: say how experts become one network: --merge average");
  if (merge != "average") fail_usage("--merge: found {}, allowed is: average", in_quotes(merge));
}

void warn_of_routes(const ConversionFiles& files, const Config& config) {
  const RouterRow& router = router_row(config.ffn.router);
  if (!router.learned && config.ffn.inference == "average") return;
  fmt::print(stderr, "switchyard: warning: {} equals {} only if that is evaluated with ffn.inference = average{}\n",
             files.to, files.from,
             router.learned ? fmt::format(": the gates of ffn.router = {} are left out", router.name) : "");
}

}  // namespace

std::string export_help(const Words&) { return kHelp; }

int export_command(World& world, const Words& arguments) {
  po::options_description own;
  add_output_options(own);
  own.add_options()("merge", po::value<std::string>()->default_value(""), "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own, 1); });
  const auto [files, config] = world.together([&] {
    const ConversionFiles named = conversion_files("export", line);
    check_merge(line);
    const Config before = checkpoint_config(named.from, "moe", "it has no experts to merge");
    const Config mixture = config_from(line, before);
    check_mixture(named.from, before, mixture, world.size());
    return std::pair{named, mixture};
  });
  world.together([&] { check_output(world, line, files); });
  world.set_timeout(config.parallel.timeout);
  if (world.speaks()) warn_of_routes(files, config);
  ModelPair models(world, config);
  const io::CheckpointInfo info = models.mixture->network().load(world.comm(), files.from);
  average_experts(models.session.context, models.session.mesh.expert_group(), models.mixture->parameters(),
                  models.dense->parameters());
  save_converted(
      world, *models.dense, models.dense_config, files.to,
      fmt::format("average of the experts of {} after step {}, digest {}", files.from, info.step, info.digest));
  return 0;
}

}  // namespace switchyard
