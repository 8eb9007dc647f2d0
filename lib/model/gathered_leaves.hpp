// Per-expert parameters, whole on every rank of an expert group: for networks that visit all of their leaves in
// training. Values are gathered once for each version of them; gradients go back to the leaves' owners.
#pragma once

#include <vector>

#include "model/pass.hpp"

namespace switchyard {

class GatheredLeaves {
 public:
  void add(ParameterId id) { parameters_.push_back({id, {}}); }

  ParameterId id(std::size_t i) const { return parameters_[i].id; }

  // Collective over the expert group, as is add_gradient().
  void gather(const Pass& pass);
  // Of the i-th parameter that was added: (experts, ...), as its ParameterSpec says.
  const float* value(std::size_t i) const { return parameters_[i].values.data(); }
  // gradient: of this rank's microbatch, shaped as value(i).
  void add_gradient(const Pass& pass, std::size_t i, const float* gradient) const;

 private:
  struct Gathered {
    ParameterId id;
    kernels::Array<float> values;
  };
  std::vector<Gathered> parameters_;
  Index version_ = -1;
};

}  // namespace switchyard
