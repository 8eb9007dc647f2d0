// Optimisers against torch.optim (golden/optimizers.h5), and the gradient's norm over experts wherever they are.
#include "train/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "comm/mesh.hpp"
#include "model/golden_file.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {
namespace {

OptimizerOptions golden_options(const GoldenFile& file, const std::string& kind) {
  OptimizerOptions options{.kind = kind, .weight_decay = file.real(kind, "weight_decay")};
  if (kind == "sgd") {
    options.momentum = file.real(kind, "momentum");
  } else {
    options.beta1 = file.real(kind, "beta1");
    options.beta2 = file.real(kind, "beta2");
    options.epsilon = file.real(kind, "eps");
  }
  return options;
}

GradientSquares squares_of(const Context& context, const ParameterStore& store, const float* gradients) {
  GradientSquares squares(context.device, store);
  const kernels::HostCopy copy = squares.sum(context, gradients);
  kernels::copy_to_host(context, std::span(&copy, 1));
  return squares;
}

class GoldenOptimizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenOptimizer, StepsAsTorchDoes) {
  const std::string kind = GetParam();
  const GoldenFile file("optimizers");
  const std::vector<float> start = file.floats("start"), all_gradients = file.floats("gradients"),
                           expected = file.floats(kind);
  const Cpu cpu;
  ParameterTable table;
  const auto size = static_cast<Index>(start.size());
  table.add({"parameters", {size}, false, {}});
  ParameterStore store(Device::kCpu, table, 0, 0);
  const GradientSquares squares(Device::kCpu, store);  // these methods do not look at them
  // Clipping multiplies gradients before anything else: a fourth of four times the gradient is the gradient.
  for (float scale : {1.0f, 0.25f}) {
    Optimizer optimizer(cpu, golden_options(file, kind), size);
    std::copy(start.begin(), start.end(), store.values());
    for (Index step = 0; step < 3; ++step) {
      std::vector<float> gradients(all_gradients.begin() + step * size, all_gradients.begin() + (step + 1) * size);
      for (float& gradient : gradients) gradient /= scale;
      optimizer.update(cpu, store, gradients.data(), squares, file.real(kind, "lr"), double{scale}, step + 1);
      for (Index i = 0; i < size; ++i)
        EXPECT_NEAR(store.values()[i], expected[static_cast<std::size_t>(step * size + i)], 4e-7)
            << "step " << step << ", element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenOptimizer, ::testing::Values("adam", "adamw", "sgd"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST(Optimizer, NamesWhatItKeeps) {
  const Cpu cpu;
  const auto names = [&](const char* kind) {
    OptimizerOptions options;
    options.kind = kind;
    Optimizer optimizer(cpu, options, 3);
    std::string all;
    for (const Optimizer::State& state : optimizer.states()) {
      all += state.name + " ";
      for (Index i = 0; i < 3; ++i) EXPECT_EQ(state.values.data()[i], 0);
    }
    return all;
  };
  EXPECT_EQ(names("adam"), "first_moment second_moment ");
  EXPECT_EQ(names("adamw"), "first_moment second_moment ");
  EXPECT_EQ(names("sgd"), "velocity ");
  EXPECT_EQ(names("normalized"), "");
  const std::string message = message_of([&] { names("lion"); });
  EXPECT_TRUE(contains(message, "\"lion\" is not one of adam, adamw, sgd")) << message;
}

// Each expert moves by the learning rate, divided over its parameters; what is not in experts as SGD moves it.
TEST(Normalized, DividesAnExpertsGradientByTheSumOfItsNorms) {
  ParameterTable table;
  table.add({"gate", {2}, false, {}});
  table.add({"blocks.0.experts.w", {3, 2}, true, {}});
  table.add({"blocks.0.experts.b", {3, 1}, true, {}});
  table.add({"blocks.1.experts.w", {3, 1}, true, {}});
  ParameterStore store(Device::kCpu, table, 0, 3);
  std::fill_n(store.values(), store.size(), 1.0f);
  // Expert 0: norms 5 and 2; expert 1 has next to no gradient; expert 2: norms 0.5 and 0. The experts of another block
  // are others.
  std::vector<float> gradients = {4, -8};
  gradients.resize(static_cast<std::size_t>(store.replicated_size()));  // experts begin at a section of their own
  gradients.insert(gradients.end(), {3, -4, 1e-40f, 1e-41f, 0, 0.5f, 2, 1e-42f, 0, 10, 0, -20});
  gradients.resize(static_cast<std::size_t>(store.size()));
  const Cpu cpu;
  Optimizer optimizer(cpu, {.kind = "normalized", .gate_rate = 100}, store.size());
  optimizer.update(cpu, store, gradients.data(), squares_of(cpu, store, gradients.data()), 1e-3, 0.5, 1);
  const std::vector<double> moves = {-3e-3 / 7, 4e-3 / 7, 0, 0, 0, -1e-3, -2e-3 / 7, 0, 0, -1e-3, 0, 1e-3};
  const float* const gate = store.value(0);
  EXPECT_NEAR(gate[0], 0.8, 2e-7);
  EXPECT_NEAR(gate[1], 1.4, 2e-7);
  for (std::size_t i = 0; i < moves.size(); ++i) EXPECT_NEAR(store.value(1)[i], 1 + moves[i], 2e-7) << i;
}

TEST(GradientNorm, IsTheSameBitsWhoeverOwnsTheExperts) {
  constexpr Index kExperts = 8;
  ParameterTable table;
  table.add({"dense", {33, 7}, false, {}});
  table.add({"experts.w", {kExperts, 11, 5}, true, {}});
  table.add({"bias", {19}, false, {}});
  table.add({"experts.b", {kExperts, 3}, true, {}});
  const Cpu cpu;
  // The gradient of one slice is the same whoever owns it. Draws are many, so that sums in another order would show.
  const auto gradient_of = [&](ParameterId id, Index slice, Index draw) {
    return order_sensitive_floats(table[id].slice_size(), static_cast<std::uint64_t>((draw * 10 + id) * 10 + slice));
  };
  const auto norm = [&](Communicator& group, Index draw) {
    const Index local = kExperts / group.size(), first = local * group.rank();
    const ParameterStore store(Device::kCpu, table, first, local);
    std::vector<float> gradients(static_cast<std::size_t>(store.size()));
    for (ParameterId id = 0; id < table.size(); ++id) {
      for (Index slice = 0; slice < store.local_slices(id); ++slice) {
        const auto values = gradient_of(id, table[id].per_expert ? first + slice : 0, draw);
        std::copy(values.begin(), values.end(), gradients.begin() + store.offset(id, slice));
      }
    }
    return squares_of(cpu, store, gradients.data()).norm(group);
  };

  const auto local = make_local_communicator();
  for (Index draw = 0; draw < 40; ++draw) {
    double reference = 0;
    for (ParameterId id = 0; id < table.size(); ++id)
      for (Index slice = 0; slice < table[id].num_slices(); ++slice)
        for (float value : gradient_of(id, slice, draw)) reference += double{value} * double{value};
    const double alone = norm(*local, draw);
    EXPECT_NEAR(alone, std::sqrt(reference), 1e-12 * alone);
    for (Index experts = 1; experts <= world_size(); experts *= 2) {
      const Mesh mesh(world_communicator(), experts);
      EXPECT_EQ(norm(mesh.expert_group(), draw), alone) << "P " << experts;
    }
  }
}

}  // namespace
}  // namespace switchyard::testing
