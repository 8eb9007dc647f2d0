#include "app/conversion.hpp"

#include <filesystem>

#include "app/run_folder.hpp"
#include "app/stop_signals.hpp"
#include "app/text.hpp"
#include "io/schema.hpp"

namespace switchyard {

namespace fs = std::filesystem;
namespace po = boost::program_options;

void add_output_options(po::options_description& own) {
  own.add_options()("output", po::value<std::string>()->default_value(""), "")("overwrite", "");
}

ConversionFiles conversion_files(const char* command, const CommandLine& line) {
  if (line.positional.empty())
    fail_usage("{0}: name a checkpoint: switchyard {0} runs/NAME/checkpoint-00000468.h5 --output NEW.h5", command);
  ConversionFiles files{line.positional[0], line.options["output"].as<std::string>()};
  if (files.to.empty()) fail_usage("{}: name the checkpoint to write: --output NEW.h5", command);
  return files;
}

namespace {

// --overwrite given by mistake must not cost a run's results, or a device.
void require_replaceable(const std::string& path) {
  const auto status = fs::symlink_status(path);
  if (!fs::exists(status)) return;
  if (!fs::is_regular_file(status))
    fail_usage("--output {}: is not a file of its own (a device, a pipe or a link): choose another", path);
  try {
    io::read_checkpoint_info(path);
  } catch (const Error& error) {
    fail_usage("--output {}: --overwrite replaces only a checkpoint: choose another ({})", path, error.what());
  }
}

}  // namespace

void check_output(const World& world, const CommandLine& line, const ConversionFiles& files) {
  if (!world.speaks()) return;
  if (fs::is_directory(files.to))
    fail_usage("--output {}: is a folder; name a file in it: {}", files.to, (fs::path(files.to) / "new.h5").string());
  std::error_code ignored;
  if (fs::equivalent(files.from, files.to, ignored))
    fail_usage("--output {}: is the checkpoint that is read: choose another", files.to);
  if (line.options.count("overwrite") > 0) return require_replaceable(files.to);
  if (fs::exists(fs::symlink_status(files.to)))
    fail_usage("--output {}: the file is there already; replace it (--overwrite), or choose another", files.to);
  const RunFolder folder(fs::absolute(files.to).parent_path());
  if (io::step_in_name(files.to) && folder.holds_a_run())
    fail_usage(
        "--output {}: {} holds a run already, and this would be one of its checkpoints: choose another folder, or give "
        "--overwrite",
        files.to, folder.path().string());
}

Config checkpoint_config(const std::string& path, const std::string& kind, const std::string& instead) {
  Config config = parse_stored(io::read_checkpoint_info(path).config, path);
  if (config.ffn.kind != kind) fail_usage("{}: is of a model with ffn.kind = {}: {}", path, config.ffn.kind, instead);
  return config;
}

void check_mixture(const std::string& path, const Config& before, const Config& mixture, int num_ranks) {
  if (mixture.ffn.kind != "moe")
    fail_usage("ffn.kind = {}: this command's mixture has ffn.kind = moe: leave the key out.", mixture.ffn.kind);
  if (mixture.ffn.shared > 0)
    fail_usage(
        "ffn.shared = {}: a dense model has no network to make shared experts of, and none to take them up: this takes "
        "mixtures with ffn.shared = 0 alone.",
        mixture.ffn.shared);
  for (const std::string& difference : result_differences(before, mixture))
    if (difference.starts_with("model.") || difference.starts_with("ffn.hidden:") ||
        difference.starts_with("ffn.activation:"))
      fail_usage("{}: its parameters are those of another model: {}: leave the key as it was.", path, difference);
  check_ranks(mixture, num_ranks);
}

namespace {

Config as_dense(Config config) {
  Config::Ffn ffn;  // nothing else of the section is a dense model's
  ffn.kind = "dense";
  ffn.hidden = config.ffn.hidden;
  ffn.activation = config.ffn.activation;
  config.ffn = ffn;
  config.parallel.experts = 1;
  validate(config);
  return config;
}

}  // namespace

ModelPair::ModelPair(World& world, const Config& config)
    : mixture_config(config),
      dense_config(world.together([&] { return as_dense(config); })),
      dataset(world.together([&] { return load_dataset(data_options(config)); })),
      session(config, world),
      dense_mesh(world.comm().split(0), 1) {
  world.together([&] {
    dense = std::make_unique<Trainer>(dense_config, session.context, dense_mesh, dataset);
    mixture = std::make_unique<Trainer>(mixture_config, session.context, session.mesh, dataset);
  });
}

void save_converted(World& world, Trainer& trainer, const Config& config, const std::string& path,
                    const std::string& origin) {
  world.together([&] {
    const fs::path folder = fs::path(path).parent_path();
    std::error_code error;
    if (world.speaks() && !folder.empty()) fs::create_directories(folder, error);
    if (error) fail("--output {}: cannot create its folder ({}); choose another", path, error.message());
  });
  ignore_stop_signals();
  trainer.save(world.comm(), path, {{io::schema::kOrigin, origin}});
  const std::string digest = trainer.digest();
  if (!world.speaks()) return;
  fmt::print("{}\nparameters {} stored, {} active\n{}\ncheckpoint {}\ndigest {}\n", describe_model(config),
             group_digits(trainer.table().num_stored()), group_digits(trainer.num_active()), origin, path, digest);
}

}  // namespace switchyard
