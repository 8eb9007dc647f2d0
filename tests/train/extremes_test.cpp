// Each number that a key allows works or is refused: both ends of every numeric key's range, in runs that use it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "config/keys.hpp"
#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

// Whose upper ends ask for more time or memory than a test has, and for nothing else.
const std::set<std::string> kLarge = {"data.synthetic_samples",
                                      "data.synthetic_size",
                                      "model.layers",
                                      "model.width",
                                      "model.head_hidden",
                                      "model.positions",
                                      "ffn.hidden",
                                      "ffn.depth",
                                      "ffn.leaf",
                                      "ffn.experts",
                                      "ffn.shared"};
// With which training rightly comes to numbers that are not finite.
const std::set<std::string> kDiverge = {"train.lr", "train.gate_lr", "train.weight_decay"};

// Which may be refused in the name of a key that no longer goes with them.
const std::set<std::string> kOthersRefuse = {"data.synthetic_samples", "data.synthetic_size", "model.patch"};

// The least and the largest number that the key takes, as text; none of flags and words.
std::vector<std::string> ends_of(const Key& key) {
  if (std::holds_alternative<std::uint64_t*>(key.value))
    return {"0", std::to_string(std::numeric_limits<std::uint64_t>::max())};
  double lowest = key.allowed.lowest, highest = std::min(key.allowed.highest, std::numeric_limits<double>::max());
  if (std::holds_alternative<Index*>(key.value))
    return {std::to_string(static_cast<Index>(lowest)), std::to_string(static_cast<Index>(highest))};
  if (!std::holds_alternative<double*>(key.value)) return {};
  if (key.allowed.lowest_open) lowest = std::nextafter(lowest, highest);
  if (key.allowed.highest_open) highest = std::nextafter(highest, lowest);
  std::vector<std::string> ends = {fmt::format("{}", lowest), fmt::format("{}", highest)};
  if (key.allowed.or_minus_one) ends.push_back("-1");
  return ends;
}

std::vector<std::string> numeric_keys() {
  Config config;
  std::vector<std::string> names;
  for (const Key& key : keys_of(config))
    if (!ends_of(key).empty()) names.push_back(key.name);
  return names;
}

// Runs that use the keys of training, of evaluation, and of every router and network.
std::vector<Config> runs() {
  std::vector<Config> configs;
  for (const char* kind :
       {"dense, images turned, with input dropout", "switch", "switch with gating dropout", "top_k with capacity",
        "noisy_top_k", "loss_free", "expert_choice", "random twice, thor", "random per token with capacity", "hash",
        "fff with region leak in every other block", "patch_cnn, experts, normalized"}) {
    Config config = config_of(kind_named(kind));
    config.train.batch = 8;
    if (config.data.kind == "clusters") config.data.flip = false, config.data.crop_padding = 0;
    validate(config);
    configs.push_back(config);
  }
  for (const char* optimizer : {"sgd", "adamw"}) {
    configs.push_back(configs.front());
    configs.back().train.optimizer = optimizer;
    configs.back().model.positions = 7;  // some of which no gradient reaches, which must stay as they are
    configs.back().train.weight_decay = 0;
    configs.back().data.validation = 0.1;
    configs.back().train.patience = configs.back().train.plateau = 1;
  }
  return configs;
}

class EveryNumber : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryNumber, WorksOrIsRefused) {
  for (const Config& base : runs()) {
    Config copy = base;
    const std::string& name = GetParam();
    const Key key = find_key(keys_of(copy), name, "test");
    const std::vector<std::string> ends = ends_of(key);
    for (const std::string& end : ends) {
      if (kLarge.contains(name) && end == ends[1]) continue;
      SCOPED_TRACE(base.ffn.kind + " " + base.ffn.router + ", " + base.train.optimizer + ": " + name + " = " + end);
      try {
        const Config config = load_config({}, {{name, end}}, base);
        validate(config);
        check_ranks(config, 1);
        require_a_batch(config, dataset_of(config));
        SmallRun run = run_alone(config);
        run.train(2);
        run->measure();
        const ParameterStore& parameters = run->parameters();
        EXPECT_TRUE(std::all_of(parameters.values(), parameters.values() + parameters.size(),
                                [](float value) { return std::isfinite(value); }));
      } catch (const Error& error) {
        if (error.code() == ExitCode::kUsage)
          EXPECT_TRUE(contains(error.what(), name) || kOthersRefuse.contains(name)) << error.what();
        else
          EXPECT_TRUE(error.code() == ExitCode::kDiverged && kDiverge.contains(name)) << error.what();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Keys, EveryNumber, ::testing::ValuesIn(numeric_keys()), [](const auto& key) {
  std::string name = key.param;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
});

// A trainer of samples that are not there, which is refused before it looks at any.
std::string refusal_of(const Config& config, const Dataset& dataset) {
  Cpu cpu;
  Mesh mesh(make_local_communicator(), 1);
  return message_of([&] { Trainer(config, cpu, mesh, dataset); });
}

TEST(Rows, AreCountedBy32Bits) {
  Config config = small_config();
  config.model.patch = 1;
  config.train.batch = 1 << 20;
  config.train.microbatch = 1 << 10;
  Dataset dataset{.name = "many", .height = 64, .width = 64, .channels = 1, .classes = 5};
  dataset.train.count = dataset.test.count = 1 << 20;
  std::string message = refusal_of(config, dataset);  // 2^20 (64 * 64 + 1) = 2^32 + 2^20
  for (const char* part : {"train.batch = 1048576", "4097 tokens a sample", "4296015872", "4294967295"})
    EXPECT_TRUE(contains(message, part)) << message;

  dataset.height = dataset.width = 8;
  config.ffn.kind = "moe";
  config.ffn.experts = 65536;
  for (const auto& [router, top_k, remedy] :
       {std::tuple{"expert_choice", 2, "ffn.experts"}, std::tuple{"top_k", 65536, "ffn.top_k"}}) {
    config.ffn.router = router;
    config.ffn.top_k = top_k;
    message = refusal_of(config, dataset);  // 2^10 (8 * 8 + 1) 2^16
    for (const char* part : {"train.microbatch = 1024", "65536 choices", "4362076160", "2147483647", remedy})
      EXPECT_TRUE(contains(message, part)) << message;
  }
}

}  // namespace
}  // namespace switchyard::testing
