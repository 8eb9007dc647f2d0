// Every parameter of a model by name: shape, start, owner. Checkpoints, digest, optimiser and reductions run over this
// one table, in its order.
#pragma once

#include <string>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

struct Initializer {
  enum class Kind { kZeros, kOnes, kNormal, kUniform };
  Kind kind = Kind::kZeros;
  double bound = 0;           // uniform over [-bound, bound)
  bool same_for_all = false;  // every expert starts as expert 0
};

struct ParameterSpec {
  std::string name;          // "blocks.3.experts.w1"
  std::vector<Index> shape;  // (experts, ...) where per_expert
  bool per_expert = false;   // expert e is owned by one rank of each expert group; otherwise every rank holds all
  Initializer initializer;

  Index num_slices() const { return per_expert ? shape.front() : 1; }
  Index size() const {
    Index product = 1;
    for (Index extent : shape) product *= extent;
    return product;
  }
  Index slice_size() const { return size() / num_slices(); }  // of one expert, or of the whole
};

using ParameterId = int;

class ParameterTable {
 public:
  ParameterId add(ParameterSpec spec) {
    specs_.push_back(std::move(spec));
    return static_cast<ParameterId>(specs_.size()) - 1;
  }
  const ParameterSpec& operator[](ParameterId id) const { return specs_[static_cast<std::size_t>(id)]; }
  ParameterId size() const { return static_cast<ParameterId>(specs_.size()); }

  // Parameters kept in memory and files, and those that one token meets when it visits `top_k` experts a layer.
  Index num_stored() const {
    Index sum = 0;
    for (const ParameterSpec& spec : specs_) sum += spec.size();
    return sum;
  }
  Index num_active(Index top_k) const {
    Index sum = 0;
    for (const ParameterSpec& spec : specs_) sum += spec.per_expert ? top_k * spec.slice_size() : spec.size();
    return sum;
  }

 private:
  std::vector<ParameterSpec> specs_;
};

}  // namespace switchyard
