// Weights in the form in which products read them, packed at their first use after they have changed: a batch of many
// microbatches multiplies by each weight many times.
#pragma once

#include <map>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "comm/parameter_store.hpp"
#include "kernels/api/gemm.hpp"

namespace switchyard {

class PackedWeights {
 public:
  // The weights of the products are values in `parameters`, or made of them alone.
  PackedWeights(const Context& context, const ParameterStore& parameters)
      : context_(context), parameters_(parameters) {}

  // The products' B are packed, with their biases: always the same one for a weight. Products of no rows stay as they
  // are.
  void pack(std::span<kernels::Gemm> products);

  using Key = std::tuple<const float*, kernels::Precision, kernels::PackedForm>;  // of a weight
  using Uses = std::set<Key>;
  // From now on notes what is packed, and what is packed already; null: nothing.
  void note(Uses* uses) { uses_ = uses; }
  // Packs all of these at once, where parameters have changed since, so that products like those before find them.
  void refresh(const Uses& uses);

  Index bytes() const;

 private:
  struct Pack {
    kernels::Array<std::byte> data;
    Index version = -1;     // of the parameters
    kernels::Gemm product;  // that it was packed for
  };

  Key key(const float* weight, const kernels::Gemm& product) const {
    return {weight, product.precision, kernels::packed_form(context_, product)};
  }
  // The pack that serves the product: its own, or that of the weight with its bias where there is one already.
  std::map<Key, Pack>::iterator find(const kernels::Gemm& product);
  // For the weights of all experts where it is one of theirs: any of them may be the next to get tokens.
  void make_room(const kernels::Gemm& product);

  const Context& context_;
  const ParameterStore& parameters_;
  std::map<Key, Pack> packs_;
  Uses* uses_ = nullptr;
  std::vector<kernels::PackB> stale_;  // of the list at hand
};

}  // namespace switchyard
