// A small model as a golden file describes it, and what its passes are held against.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "model/golden_file.hpp"
#include "model/small_model.hpp"

namespace switchyard::testing {

// An element may be off by kRelative of itself plus kAbsolute of its array's largest: a few roundings (6e-8 each) of
// sums of some dozens of terms, through two layers.
inline constexpr double kRelative = 1e-5, kAbsolute = 2e-6;

inline void expect_close(const std::vector<float>& found, const std::vector<float>& expected, const std::string& name) {
  ASSERT_EQ(found.size(), expected.size()) << name;
  double largest = 0;
  for (float value : expected) largest = std::max(largest, std::abs(double{value}));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double allowed = kRelative * std::abs(double{expected[i]}) + kAbsolute * largest;
    EXPECT_NEAR(found[i], expected[i], allowed) << name << "[" << i << "]";
  }
}

inline ModelOptions golden_options(const GoldenFile& file, const std::string& router) {
  ModelOptions options;
  options.image_height = options.image_width = file.integer("image_size");
  options.channels = file.integer("channels");
  options.classes = file.integer("classes");
  options.layers = file.integer("layers");
  options.width = file.integer("width");
  options.heads = file.integer("heads");
  options.patch = file.integer("patch");
  options.head_hidden = file.integer("head_hidden");
  options.positions = file.integer("positions");
  options.ffn.kind = router == "dense" ? "dense" : "moe";
  options.ffn.hidden = file.integer("hidden");
  options.ffn.num_experts = file.integer("experts");
  options.ffn.router.name = router == "dense" ? "switch" : router;
  options.ffn.router.granularity = "batch";
  options.ffn.router.balance_loss = file.real("/", "balance_loss");
  options.mean.fill(0.5f);
  options.deviation.fill(0.5f);
  return options;
}

inline Batch golden_batch(const GoldenFile& file) {
  return {file.integer("batch"), file.integer("microbatch"), file.bytes("images"), file.integers("labels")};
}

inline void load_parameters(const GoldenFile& file, SmallModel& model) {
  // Both hold the same parameters by name: none is missing on either side.
  EXPECT_EQ(file.num_in_group("parameters"), model.table().size());
  for (ParameterId id = 0; id < model.table().size(); ++id) {
    const std::vector<float> values = file.floats("parameters/" + model.table()[id].name);
    ASSERT_EQ(static_cast<Index>(values.size()), model.table()[id].size()) << model.table()[id].name;
    model.set(id, values);
  }
}

// What rank `rank` of `size` has of an array by sample.
inline std::vector<float> share_of(const std::vector<float>& all, Communicator& world) {
  const auto each = static_cast<std::ptrdiff_t>(all.size()) / world.size();
  return {all.begin() + world.rank() * each, all.begin() + (world.rank() + 1) * each};
}

inline void expect_gradients(const GoldenFile& file, SmallModel& model, const Outcome& outcome) {
  Index num_trained = 0;
  for (ParameterId id = 0; id < model.table().size(); ++id) {
    if (!model.table()[id].trained) continue;
    ++num_trained;
    const std::string& name = model.table()[id].name;
    const auto first = outcome.gradients.begin() + model.parameters().offset(id);
    expect_close({first, first + model.size_of(id)}, model.part(id, file.floats("gradients/" + name)), name);
  }
  EXPECT_EQ(file.num_in_group("gradients"), num_trained);
}

}  // namespace switchyard::testing
