// A results file with a flipped bit is read at once, or called damaged at once: never a hang, never another name for
// it.
#include <unistd.h>

#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

class ResultsDamage : public ::testing::Test {
 protected:
  ResultsDamage() : path_(folder_ / "run.h5") {
    ResultsWriter writer = ResultsWriter::create(path_, {{"config", "[run]\nname = a\n"}}, {2, 3});
    for (Index step = 1; step <= 20; ++step) {
      writer.append(StepRow{.step = step});
      const std::vector<float> of_experts(6), of_layers(2);
      writer.append(
          RoutingRow{step, of_experts, of_experts, of_experts, of_layers, of_layers, of_layers, of_layers, of_layers});
    }
    writer.append(EvaluationRow{.step = 20});
    writer.close();
    bytes_ = bytes_of(path_);
    alarm(120);  // ends a test that hangs
  }
  ~ResultsDamage() override { alarm(0); }

  void flip(std::size_t at) {
    std::string flipped = bytes_;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    write_bytes(path_, flipped);
  }

  TemporaryFolder folder_;
  std::filesystem::path path_;
  std::string bytes_;
};

TEST_F(ResultsDamage, ABitOfTheSuperblock) {
  for (std::size_t at = 0; at < 48; ++at) {
    flip(at);
    const ResultsSummary summary = describe_results(path_);
    EXPECT_TRUE(summary.readable || contains(summary.problem, "damaged")) << at << ": " << summary.problem;
    EXPECT_TRUE(contains(message_of([&] {
                           ResultsWriter::reopen(path_, 20, {}, {2, 3});
                         }),
                         "damaged") ||
                summary.readable)
        << at;
  }
}

TEST_F(ResultsDamage, ABitAnywhere) {
  std::size_t num_damaged = 0;
  const auto expect_damage_named = [&](std::size_t at) {
    flip(at);
    const ResultsSummary summary = describe_results(path_);
    if (summary.readable) return;
    ++num_damaged;
    EXPECT_TRUE(contains(summary.problem, "damaged")) << at << ": " << summary.problem;
    if (summary.is_results) return;
    const std::string as_checkpoint = describe_checkpoint(path_).problem;
    EXPECT_TRUE(contains(as_checkpoint, "damaged")) << at << ": " << as_checkpoint;
  };
  // Zeros are mostly room between objects.
  std::vector<std::size_t> places;
  for (std::size_t at = 48; at < bytes_.size(); ++at)
    if (bytes_[at] != 0) places.push_back(at);
  for (std::size_t i = 0; i < places.size(); i += 17) expect_damage_named(places[i]);
  EXPECT_GT(num_damaged, 100u);
}

TEST_F(ResultsDamage, ARowsDatasetIsNamed) {
  const std::size_t name = bytes_.find("learning_rate");
  ASSERT_NE(name, std::string::npos);
  flip(name);
  const ResultsSummary summary = describe_results(path_);
  EXPECT_TRUE(summary.is_results);
  EXPECT_TRUE(contains(summary.problem, path_.string() + ": is damaged: cannot open steps/")) << summary.problem;
}

}  // namespace
}  // namespace switchyard::io::testing
