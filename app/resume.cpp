#include "app/resume.hpp"

#include <map>
#include <vector>

#include "app/attributes.hpp"
#include "config/keys.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "io/schema.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// On rank 0: the newest checkpoint that verifies, empty where there is none at all.
std::string newest_checkpoint(const fs::path& folder) {
  std::vector<std::string> warnings;
  const auto newest = io::newest_valid_checkpoint(folder, warnings);
  for (const std::string& warning : warnings) fmt::print(stderr, "switchyard: warning: {}\n", warning);
  if (newest) return newest->string();
  std::string names;
  for (const fs::path& each : io::list_checkpoints(folder))
    names += (names.empty() ? "" : ", ") + each.filename().string();
  if (!names.empty())
    fail(
        "--resume: {} holds checkpoints, but none verifies: {}. To begin anew, remove them or give --overwrite instead "
        "of --resume",
        folder.string(), names);
  return "";
}

// What a checkpoint was trained with must be what it goes on with.
void check_configuration(const io::CheckpointInfo& info, const std::string& path, const Config& config,
                         Index total_steps) {
  const std::string differences = joined(result_differences(parse_stored(info.config, path), config), ", ");
  if (!differences.empty())
    fail_usage(
        "--resume: the configuration differs from that of {}: {}. Give the values that it was trained with, or "
        "start a new run under another run.name",
        path, differences);
  if (info.step > total_steps)
    fail_usage(
        "--resume: {} was saved after step {}, but this run ends after step {}: raise {}, or resume from an earlier "
        "checkpoint",
        path, info.step, total_steps, config.run.steps > 0 ? "run.steps" : "run.epochs");
}

std::string data_place(const Config::Data& data) {
  const std::string path = data.path.empty() ? default_path(data.kind) : data.path;
  return path.empty() ? data.kind : path;
}

void check_data(const io::CheckpointInfo& info, const std::string& path, const Config& config, const Attributes& data) {
  const std::string differences = other_values(info.attributes, data);
  if (!differences.empty())
    fail_usage(
        "--resume: {} was trained on {} as it was then; {} now holds other data: {}. Give the data that it was trained "
        "on as data.path, or start a new run under another run.name",
        path, data_place(parse_stored(info.config, path).data), data_place(config.data), differences);
}

// The promise of equal bits is for equal libraries on the same kind of device.
void warn_of_other_bits(const io::CheckpointInfo& info, const std::string& path,
                        const std::map<std::string, std::string>& machine) {
  std::string differences;
  for (const auto& [name, value] : machine) {
    const auto found = info.attributes.find(name);
    if (found == info.attributes.end() || found->second == value) continue;
    differences += fmt::format("{}{}: {} -> {}", differences.empty() ? "" : ", ", name, found->second, value);
  }
  if (!differences.empty())
    fmt::print(stderr,
               "switchyard: warning: {} was saved with other libraries or on another device; what follows may differ "
               "in its last bits from what "
               "that one would have computed: {}\n",
               path, differences);
}

}  // namespace

void check_results(const fs::path& path, const Config& config, const Attributes& data, bool begins_anew) {
  const io::ResultsSummary results = io::describe_results(path);
  const auto before = results.attributes.find(io::schema::kConfig);
  // Of what cannot be read, opening it to go on says why.
  if (!results.readable || before == results.attributes.end()) return;
  std::string differences = joined(result_differences(parse_stored(before->second, path.string()), config), ", ");
  if (differences.empty()) differences = other_values(results.attributes, data);
  if (!differences.empty())
    fail_usage("--resume: {} holds the results of another run: {}. Move it away, or choose another run.name",
               path.string(), differences);
  const auto status = results.attributes.find("status");
  if (begins_anew && status != results.attributes.end() && status->second == "finished")
    fail_usage(
        "--resume: {} is of a finished run, but no checkpoint of it is left to go on from. To train it anew, give "
        "--overwrite instead of --resume",
        path.string());
}

void start_from(World& world, Trainer& trainer, const Config& config) {
  const std::string& file = config.train.start;
  if (file.empty()) return;
  const auto explained = [](std::string_view problem) {
    return fmt::format("train.start: {}; give a checkpoint of the model that is trained", problem);
  };
  world.together([&] {
    std::error_code error;
    if (fs::is_regular_file(file, error)) return;
    fail_usage("{}", explained(file + ": " + (error ? error.message() : "not a file")));
  });
  try {
    trainer.start_from(world.comm(), file);
  } catch (const AgreedError& error) {
    throw AgreedError(explained(error.what()), error.code());
  }
  if (world.speaks()) fmt::print("starting from {}\n", trainer.origin());
}

std::optional<fs::path> resume(World& world, Trainer& trainer, const Config& config, const fs::path& folder,
                               const std::string& from, const std::map<std::string, std::string>& machine) {
  // Rank 0 alone looks; loading verifies every byte again, each rank its own.
  const std::string chosen = world.together([&] {
    if (!world.speaks()) return std::string();
    const std::string path = from.empty() ? newest_checkpoint(folder) : from;
    if (path.empty()) return path;
    io::CheckpointInfo info;
    try {
      info = io::read_checkpoint_info(path);
    } catch (const Error& error) {
      fail("{}; resume from another checkpoint", error.what());
    }
    check_configuration(info, path, config, trainer.total_steps());
    return path;
  });
  const std::string path = broadcast_text(world.comm(), "the checkpoint to resume from", chosen);
  if (path.empty()) {
    start_from(world, trainer, config);
    return std::nullopt;
  }
  const io::CheckpointInfo info = [&] {
    try {
      return trainer.load(world.comm(), path);
    } catch (const AgreedError& error) {
      throw AgreedError(fmt::format("{}; resume from another checkpoint", error.what()), error.code());
    }
  }();
  world.together([&] { check_data(info, path, config, trainer.data_attributes()); });
  if (world.speaks()) warn_of_other_bits(info, path, machine);
  return path;
}

}  // namespace switchyard
