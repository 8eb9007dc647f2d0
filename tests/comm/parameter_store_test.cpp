// Where parameters and the sums of their gradients lie, on every rank and for every expert-parallel size.
#include "comm/parameter_store.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "comm/collectives.hpp"
#include "comm/reference_tree.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 4;

// Replicated and expert parameters in turn.
ParameterTable small_table() {
  const Initializer uniform{Initializer::Kind::kUniform, 0.5};
  ParameterTable table;
  table.add({"a", {3, 2}, false, uniform});
  table.add({"experts.w", {kExperts, 5, 7}, true, uniform});
  table.add({"b", {4}, false, {Initializer::Kind::kOnes}});
  table.add({"experts.b", {kExperts, 3}, true, uniform});
  return table;
}

Floats values_of(const ParameterStore& store, ParameterId id, Index local_expert = 0) {
  const float* values = store.value(id, local_expert);
  return {values, values + store.table()[id].slice_size()};
}

TEST(ParameterStore, ReplicatedParametersFirstThenThoseOfLocalExperts) {
  const ParameterTable table = small_table();
  EXPECT_EQ(table.num_stored(), 6 + 140 + 4 + 12);
  EXPECT_EQ(table.num_active(1), 6 + 35 + 4 + 3);
  const ParameterStore store(Device::kCpu, table, 2, 2);
  // Each section begins at a multiple of 16.
  EXPECT_EQ(store.replicated_size(), 16);
  EXPECT_EQ(store.trained_size(), 16 + 80);
  EXPECT_EQ(store.size(), 16 + 80);
  EXPECT_EQ(store.offset(0), 0);
  EXPECT_EQ(store.offset(2), 6);
  EXPECT_EQ(store.offset(1, 0), 16);
  EXPECT_EQ(store.offset(1, 1), 16 + 35);
  EXPECT_EQ(store.offset(3, 1), 16 + 2 * 35 + 3);
  EXPECT_EQ(store.local_slices(0), 1);
  EXPECT_EQ(store.local_slices(1), 2);
}

TEST(ParameterStore, AnExpertStartsTheSameWhoeverOwnsIt) {
  const ParameterTable table = small_table();
  const Cpu cpu;
  ParameterStore all(Device::kCpu, table, 0, kExperts);
  all.initialize(cpu, 11);
  for (Index local : {1, 2}) {
    for (Index first = 0; first < kExperts; first += local) {
      ParameterStore part(Device::kCpu, table, first, local);
      part.initialize(cpu, 11);
      for (ParameterId id : {0, 2}) EXPECT_EQ(values_of(part, id), values_of(all, id));
      for (ParameterId id : {1, 3})
        for (Index expert = 0; expert < local; ++expert)
          EXPECT_EQ(values_of(part, id, expert), values_of(all, id, first + expert)) << "expert " << first + expert;
    }
  }
  for (Index expert = 1; expert < kExperts; ++expert) EXPECT_NE(values_of(all, 1, expert), values_of(all, 1, 0));
}

TEST(ParameterStore, ExpertsMayStartEqual) {
  ParameterTable table;
  table.add({"experts.w", {kExperts, 6}, true, {Initializer::Kind::kUniform, 0.5, true}});
  ParameterStore store(Device::kCpu, table, 0, kExperts);
  store.initialize(Cpu(), 11);
  for (Index expert = 1; expert < kExperts; ++expert) EXPECT_EQ(values_of(store, 0, expert), values_of(store, 0, 0));
  EXPECT_NE(values_of(store, 0)[0], values_of(store, 0)[1]);
}

TEST(ParameterStore, ValuesAreAFunctionOfSeedAndName) {
  const Initializer uniform{Initializer::Kind::kUniform, 0.5};
  ParameterTable two, one;
  two.add({"other", {9}, false, uniform});
  two.add({"a", {9}, false, uniform});
  one.add({"a", {9}, false, uniform});
  ParameterStore of_two(Device::kCpu, two, 0, 0), of_one(Device::kCpu, one, 0, 0), again(Device::kCpu, one, 0, 0);
  of_two.initialize(Cpu(), 11);
  of_one.initialize(Cpu(), 11);
  again.initialize(Cpu(), 12);
  EXPECT_EQ(values_of(of_two, 1), values_of(of_one, 0));
  EXPECT_NE(values_of(of_two, 0), values_of(of_two, 1));
  EXPECT_NE(values_of(again, 0), values_of(of_one, 0));
}

TEST(ParameterStore, InitialDistributions) {
  constexpr Index kSize = 20001;
  ParameterTable table;
  table.add({"uniform", {kSize}, false, {Initializer::Kind::kUniform, 0.25}});
  table.add({"normal", {kSize}, false, {Initializer::Kind::kNormal}});
  table.add({"zeros", {3}, false, {}});
  table.add({"ones", {3}, false, {Initializer::Kind::kOnes}});
  ParameterStore store(Device::kCpu, table, 0, 0);
  store.initialize(Cpu(), 5);
  const auto moment = [&](ParameterId id, int power) {
    double sum = 0;
    for (float value : values_of(store, id)) sum += std::pow(double{value}, power);
    return sum / kSize;
  };
  for (float value : values_of(store, 0)) EXPECT_LE(std::abs(value), 0.25f);
  // Four standard errors.
  EXPECT_NEAR(moment(0, 1), 0, 4 * 0.25 / std::sqrt(3.0 * kSize));
  EXPECT_NEAR(moment(0, 2), 0.0625 / 3, 4 * 0.0625 * std::sqrt(4.0 / 45 / kSize));
  EXPECT_NEAR(moment(1, 1), 0, 4 / std::sqrt(1.0 * kSize));
  EXPECT_NEAR(moment(1, 2), 1, 4 * std::sqrt(2.0 / kSize));
  EXPECT_NEAR(moment(1, 4), 3, 4 * std::sqrt(96.0 / kSize));
  EXPECT_EQ(values_of(store, 2), Floats(3, 0.0f));
  EXPECT_EQ(values_of(store, 3), Floats(3, 1.0f));
}

// The gradient of microbatch `leaf` of the batch. Half of the experts get no token of it.
std::optional<Floats> gradient_of(const ParameterTable& table, ParameterId id, Index expert, Index leaf) {
  const bool no_tokens = table[id].per_expert && (leaf * 7 + expert * 5) % 4 < 2;
  if (no_tokens) return std::nullopt;
  return order_sensitive_floats(table[id].slice_size(), static_cast<std::uint64_t>(10000 * id + 100 * expert + leaf));
}

Floats expected_total(const ParameterTable& table, ParameterId id, Index expert, Index num_leaves) {
  std::vector<Floats> leaves;
  for (Index leaf = 0; leaf < num_leaves; ++leaf)
    leaves.push_back(
        gradient_of(table, id, expert, leaf).value_or(Floats(static_cast<std::size_t>(table[id].slice_size()), 0.0f)));
  return reference_tree(leaves, odd_factor(num_leaves));
}

void put(GradientSums& sums, const Context& context, const GradientSums::Leaf& leaf, const Floats& values) {
  std::copy(values.begin(), values.end(), leaf.data);
  sums.add(context, leaf);
}

// A product that gives these values: 1 times them.
kernels::Gemm product_of(const Floats& values) {
  static const float kOne = 1;
  const auto size = static_cast<Index>(values.size());
  return {.m = 1, .n = size, .k = 1, .a = &kOne, .lda = 1, .b = values.data(), .ldb = size, .ldc = size};
}

// Leaves of two parameters come as products, as gradients of weights do.
bool comes_as_product(ParameterId id) { return id < 2; }

// What a rank does in a step: in lockstep with its expert group, one microbatch after the other, last parameter first,
// it receives gradients of its experts from each rank of the group, and has those of replicated parameters from its own
// microbatch.
GradientSums::Totals sum_batch(GradientSums& sums, const ParameterStore& store, Mesh& mesh, Index num_leaves) {
  const ParameterTable& table = store.table();
  const Index local_leaves = num_leaves / mesh.world().size();
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  for (Index i = 0; i < local_leaves; ++i) {
    const kernels::ArenaScope scope(arena);
    for (ParameterId id = table.size(); id-- > 0; sums.reduce_complete(cpu)) {
      if (!table[id].per_expert) {
        const Floats gradient = *gradient_of(table, id, 0, mesh.world().rank() * local_leaves + i);
        if (comes_as_product(id))
          kernels::gemm(cpu, sums.leaf_product(id, product_of(gradient)));
        else
          put(sums, cpu, sums.leaf(id, arena), gradient);
        continue;
      }
      for (Index source = 0; source < mesh.expert_group().size(); ++source) {
        const Index source_rank = mesh.expert_group().world_ranks()[static_cast<std::size_t>(source)];
        for (Index expert = 0; expert < store.num_local_experts(); ++expert) {
          const auto gradient = gradient_of(table, id, store.first_expert() + expert, source_rank * local_leaves + i);
          if (gradient && comes_as_product(id)) {
            kernels::gemm(cpu, sums.expert_leaf_product(id, expert, source, product_of(*gradient)));
          } else if (gradient) {
            put(sums, cpu, sums.expert_leaf(id, expert, source, arena), *gradient);
          } else {
            sums.skip_expert(cpu, id, expert, source);
          }
        }
      }
    }
    put(sums, cpu, sums.metrics_leaf(arena), {1, static_cast<float>(mesh.world().rank())});
  }
  return sums.finish(cpu);
}

bool is_zero(float x) { return x == 0; }

void expect_tree_of_batch(const GradientSums::Totals& totals, const ParameterStore& store, Index num_leaves) {
  const ParameterTable& table = store.table();
  for (ParameterId id = 0; id < table.size(); ++id) {
    for (Index slice = 0; slice < store.local_slices(id); ++slice) {
      const float* first = totals.gradients + store.offset(id, slice);
      const Index expert = table[id].per_expert ? store.first_expert() + slice : 0;
      EXPECT_EQ(bits_of({first, first + table[id].slice_size()}),
                bits_of(expected_total(table, id, expert, num_leaves)))
          << table[id].name << ", expert " << expert;
    }
  }
  // What is between sections stays zero, and sections begin where vectors can be loaded.
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(totals.gradients) % 64, 0u);
  EXPECT_TRUE(std::all_of(totals.gradients + 10, totals.gradients + store.replicated_size(), is_zero));
  EXPECT_TRUE(std::all_of(totals.gradients + store.offset(3, store.local_slices(3)),
                          totals.gradients + store.trained_size(), is_zero));
  EXPECT_EQ(totals.metrics[0], num_leaves);
  EXPECT_EQ(totals.metrics[1], num_leaves * (world_size() - 1) / 2.0f);
}

// Summed over ranks at the end, or, with overlap, parameter by parameter.
TEST(GradientSums, AreTheBatchsTreeForEveryExpertParallelSize) {
  const ParameterTable table = small_table();
  for (Index num_leaves : {4, 8, 12}) {
    for (Index experts = 1; experts <= world_size(); experts *= 2) {
      for (const bool overlap : {false, true}) {
        SCOPED_TRACE(std::to_string(num_leaves) + " microbatches, P " + std::to_string(experts) +
                     (overlap ? ", overlap" : ""));
        Mesh mesh(world_communicator(), experts);
        const Index local_experts = kExperts / experts;
        const ParameterStore store(Device::kCpu, table, local_experts * mesh.expert_group().rank(), local_experts);
        GradientSums sums(Device::kCpu, store, num_leaves / world_size(), odd_factor(num_leaves), mesh,
                          {.overlap = overlap}, 2);
        for (int round = 0; round < 2; ++round)  // the second one must not see the first
          expect_tree_of_batch(sum_batch(sums, store, mesh, num_leaves), store, num_leaves);
      }
    }
  }
}

TEST(GradientSums, AWholeTreeIsItsHalvesJoined) {
  // 8 leaves on one rank = 2 leaves on each of four, or 4 on each of two, and tree_reduce.
  constexpr Index kLeaves = 8, kSize = 1001;
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  const auto tree_over = [&](Index first, Index count) {
    auto sum = std::make_unique<TreeSum>(Device::kCpu, count, 1, std::vector<Index>{kSize});
    for (Index leaf = first; leaf < first + count; ++leaf) {
      const kernels::ArenaScope scope(arena);
      float* place = sum->leaf(0, arena);
      const Floats values = order_sensitive_floats(kSize, static_cast<std::uint64_t>(leaf));
      std::copy(values.begin(), values.end(), place);
      sum->add(cpu, 0, place);
    }
    const float* total = sum->finish(cpu);
    return Floats(total, total + kSize);
  };
  const Floats whole = tree_over(0, kLeaves);
  EXPECT_EQ(bits_of(sum_of(tree_over(0, 4), tree_over(4, 4))), bits_of(whole));

  const auto comm = world_communicator();
  const Index local = kLeaves / comm->size();
  Floats mine = tree_over(comm->rank() * local, local), scratch((kSize + 1) / 2);
  tree_reduce(cpu, *comm, "test", mine.data(), kSize, scratch.data());
  EXPECT_EQ(bits_of(mine), bits_of(whole));
}

TEST(GradientSums, TheLibrarysSumIsNearTheTrees) {
  const ParameterTable table = small_table();
  Mesh mesh(world_communicator(), 1);
  const ParameterStore store(Device::kCpu, table, 0, kExperts);
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  Floats totals[2];
  for (bool by_library : {false, true}) {
    GradientSums sums(Device::kCpu, store, 1, 1, mesh, {.by_library = by_library}, 1);
    for (ParameterId id = 0; id < table.size(); ++id)
      for (Index slice = 0; slice < store.local_slices(id); ++slice)
        put(sums, cpu, table[id].per_expert ? sums.expert_leaf(id, slice, 0, arena) : sums.leaf(id, arena),
            random_floats(table[id].slice_size(), static_cast<std::uint64_t>(world_rank() * 100 + id * 10 + slice)));
    put(sums, cpu, sums.metrics_leaf(arena), {1});
    const GradientSums::Totals found = sums.finish(cpu);
    totals[by_library].assign(found.gradients, found.gradients + store.size());
    EXPECT_EQ(found.metrics[0], world_size());
  }
  for (std::size_t i = 0; i < totals[0].size(); ++i) EXPECT_NEAR(totals[0][i], totals[1][i], 1e-6);
}

}  // namespace
}  // namespace switchyard::testing
