// Every parameter of a model by name: shape, start, owner. Checkpoints, digest, optimiser and reductions run over this
// one table, in its order.
#pragma once

#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/types.hpp"

namespace switchyard {

struct Initializer {
  enum class Kind { kZeros, kOnes, kNormal, kUniform };
  Kind kind = Kind::kZeros;
  double bound = 0;           // uniform over [-bound, bound)
  bool same_for_all = false;  // every expert starts as expert 0
  double added_to_first = 0;  // to the first element, after all else
};

struct ParameterSpec {
  std::string name;          // "blocks.3.experts.w1"
  std::vector<Index> shape;  // (experts, ...) where per_expert
  bool per_expert = false;   // expert e is owned by one rank of each expert group; otherwise every rank holds all
  Initializer initializer;
  Index rows_met = 0;   // by one token, of shape.front(); 0: all of them (for each expert that it visits)
  bool trained = true;  // by gradients; otherwise replicated, and changed by whoever added it

  Index num_slices() const { return per_expert ? shape.front() : 1; }
  Index size() const {
    Index product = 1;
    for (Index extent : shape) product *= extent;
    return product;
  }
  Index slice_size() const { return size() / num_slices(); }  // of one expert, or of the whole
};

using ParameterId = int;

// As float32, a petabyte: more than any machine's memory.
inline constexpr Index kMostParameters = Index{1} << 48;

class ParameterTable {
 public:
  // Fails where the model grows beyond kMostParameters. Within them no sum of sizes, nor their bytes, can overflow.
  ParameterId add(ParameterSpec spec) {
    Index size = 1;
    bool too_many = false;
    for (Index extent : spec.shape) too_many |= __builtin_mul_overflow(size, extent, &size);
    too_many |= __builtin_add_overflow(size, num_stored_, &size);
    if (too_many || size > kMostParameters)
      fail_usage(
          "{}, of shape ({}), takes the model beyond {} parameters: lower model.layers, model.width, ffn.hidden or "
          "ffn.experts.",
          spec.name, listed(spec.shape), kMostParameters);
    num_stored_ = size;
    specs_.push_back(std::move(spec));
    return static_cast<ParameterId>(specs_.size()) - 1;
  }
  void set_rows_met(ParameterId id, Index rows) { specs_[static_cast<std::size_t>(id)].rows_met = rows; }
  void set_trained(ParameterId id, bool trained) { specs_[static_cast<std::size_t>(id)].trained = trained; }
  const ParameterSpec& operator[](ParameterId id) const { return specs_[static_cast<std::size_t>(id)]; }
  ParameterId size() const { return static_cast<ParameterId>(specs_.size()); }

  // Parameters kept in memory and files, and those that one token meets when it visits `top_k` experts a layer.
  Index num_stored() const { return num_stored_; }
  Index num_active(Index top_k) const {
    Index sum = 0;
    for (const ParameterSpec& spec : specs_) {
      if (spec.per_expert)
        sum += top_k * spec.slice_size();
      else
        sum += spec.rows_met > 0 ? spec.rows_met * (spec.size() / spec.shape.front()) : spec.size();
    }
    return sum;
  }

 private:
  std::vector<ParameterSpec> specs_;
  Index num_stored_ = 0;
};

}  // namespace switchyard
