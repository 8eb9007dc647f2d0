// Weights in the form in which products read them, packed at their first use after they have changed: a batch of many
// microbatches multiplies by each weight many times.
#pragma once

#include <map>
#include <tuple>

#include "comm/parameter_store.hpp"
#include "kernels/api/gemm.hpp"

namespace switchyard {

class PackedWeights {
 public:
  // The weights of the products are values in `parameters`, or made of them alone.
  PackedWeights(const Context& context, const ParameterStore& parameters)
      : context_(context), parameters_(parameters) {}

  // The same product, its B packed.
  kernels::Gemm with_packed_b(kernels::Gemm product);

 private:
  struct Pack {
    kernels::Array<std::byte> data;
    Index version = -1;  // of the parameters
  };

  const Context& context_;
  const ParameterStore& parameters_;
  // By weight, whether it is multiplied transposed, and format.
  std::map<std::tuple<const float*, bool, kernels::Precision>, Pack> packs_;
};

}  // namespace switchyard
