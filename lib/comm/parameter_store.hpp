// Where each parameter lives: replicated on every rank, or with its expert's owner. Values and running gradient sums.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "comm/mesh.hpp"
#include "comm/tree_sum.hpp"
#include "core/parameter_table.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

// One array holds all that this rank owns: replicated parameters in table order, then those of its experts, then what
// no gradient trains. Each of these sections begins at a cache line, where vectors can be loaded; what is between them
// is zero.
class ParameterStore {
 public:
  // first_expert, num_experts: those that this rank owns.
  ParameterStore(Device device, const ParameterTable& table, Index first_expert, Index num_experts);

  const ParameterTable& table() const { return table_; }
  Index first_expert() const { return first_expert_; }
  Index num_local_experts() const { return num_local_experts_; }

  static constexpr Index kSectionMultiple = 64 / sizeof(float);

  // Elements of the whole array, of the part that gradients train, and of its replicated front, each with what is
  // between it and the next.
  Index size() const { return size_; }
  Index trained_size() const { return trained_size_; }
  Index replicated_size() const { return replicated_size_; }
  // Where a parameter (of a local expert) begins.
  Index offset(ParameterId id, Index local_expert = 0) const {
    return offsets_[static_cast<std::size_t>(id)] + local_expert * table_[id].slice_size();
  }
  Index local_slices(ParameterId id) const { return table_[id].per_expert ? num_local_experts_ : 1; }

  // To be written to: a new version.
  float* values() {
    ++version_;
    return values_.data();
  }
  const float* values() const { return values_.data(); }
  Index version() const { return version_; }  // what was made of the values of another version is out of date
  const float* value(ParameterId id, Index local_expert = 0) const { return values_.data() + offset(id, local_expert); }

  // Every value from the seed and the parameter's name alone.
  void initialize(const Context& context, std::uint64_t seed);

 private:
  const ParameterTable& table_;
  Index first_expert_, num_local_experts_;
  std::vector<Index> offsets_;
  Index replicated_size_ = 0, trained_size_ = 0, size_ = 0, version_ = 0;
  kernels::Array<float> values_;
};

// The batch's gradients, summed over microbatches and ranks along the one fixed tree. A few floats of metrics (losses,
// counts) travel before the replicated part, so that they need no reduction of their own.
class GradientSums {
 public:
  struct Reduction {          // over ranks
    bool by_library = false;  // the library's own sum, in whatever order
    // On a stream of its own: sums that are complete travel while others are still computed.
    bool overlap = false;
  };

  // num_leaves: microbatches of this rank in a batch; block: the odd factor of the whole batch's number of
  // microbatches. Each rank of the mesh's expert group is a source, which sends its own microbatches' tokens.
  GradientSums(Device device, const ParameterStore& store, Index num_leaves, Index block, Mesh& mesh,
               const Reduction& reduction, Index num_metrics);

  // A gradient being computed: write to data, then give it to add().
  struct Leaf {
    TreeSum* sum;
    Index part;
    float* data;
  };
  Leaf leaf(ParameterId id, kernels::Arena& arena);
  Leaf expert_leaf(ParameterId id, Index local_expert, Index source, kernels::Arena& arena);
  Leaf metrics_leaf(kernels::Arena& arena);
  // The product whose C is the parameter's next leaf, completed so that it adds itself to the sum.
  kernels::Gemm leaf_product(ParameterId id, const kernels::Gemm& product);
  kernels::Gemm expert_leaf_product(ParameterId id, Index local_expert, Index source, const kernels::Gemm& product);
  void add(const Context& context, const Leaf& leaf) { leaf.sum->add(context, leaf.part, leaf.data); }
  // The next leaf of an expert's parameter, already computed.
  void add_expert(const Context& context, ParameterId id, Index local_expert, Index source, const float* leaf) {
    by_source_[static_cast<std::size_t>(source)]->add(context, expert_part(id, local_expert), leaf);
  }
  // The expert had no token of this source's microbatch.
  void skip_expert(const Context& context, ParameterId id, Index local_expert, Index source);

  bool overlaps() const { return reduction_.overlap; }
  // With overlap, begins to sum over ranks what has had its last leaf, from the last parameter backwards. Called by
  // all ranks at the same places of a backward pass.
  void reduce_complete(const Context& context);

  // As TreeSum's, of all trees.
  struct State {
    TreeSum::State replicated;
    std::vector<TreeSum::State> by_source;
    bool operator==(const State&) const = default;
  };
  State state() const;
  void set_state(const State& state);

  // The sums over the whole world: gradients in the store's layout, then this rank's copy of the metrics.
  struct Totals {
    const float* gradients;  // (store.trained_size())
    const float* metrics;    // (num_metrics)
  };                         // until the next leaf is taken
  Totals finish(const Context& context);

 private:
  // Of the parts of one tree: those before it are not reduced yet.
  struct Reduced {
    Index replicated, experts;
  };
  Index expert_part(ParameterId id, Index local_expert) const;
  Context reducing(const Context& context) const;
  Reduced nothing_reduced() const;
  void reduce_from(const Context& context, const Reduced& first);
  void reduce(const Context& context, Communicator& ranks, float* sums, Index size);
  void fill_gaps(const Context& context);

  Mesh& mesh_;
  Reduction reduction_;
  std::optional<kernels::Stream> stream_;  // for reductions, where they overlap
  Reduced reduced_{};
  Index num_metrics_;
  std::vector<Index> part_of_parameter_;  // in replicated_ or, for expert 0, in by_source_
  std::unique_ptr<TreeSum> replicated_;
  std::vector<std::unique_ptr<TreeSum>> by_source_;
  kernels::Array<float> storage_;
  float* gradients_ = nullptr;  // in storage_: in the store's layout, behind the metrics
  Index trained_size_, replicated_size_;
  bool gaps_are_zero_ = false;     // those between sections
  kernels::Array<float> scratch_;  // half of the larger reduction
};

}  // namespace switchyard
