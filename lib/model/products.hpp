// The matrix products that one microbatch of training costs: what a step cannot do without, and so its limit.
#pragma once

#include <vector>

#include "model/model.hpp"

namespace switchyard {

struct ProductShape {
  bool transpose_a = false, transpose_b = false;
  Index m = 0, n = 0, k = 0;
  Index count = 1;  // how often a microbatch's forward and backward pass take it

  double flop() const {
    return 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(count);
  }
};

// Into how many segments, of equal size, a microbatch's tokens are taken to fall: 1 for a dense network.
Index num_segments(const ModelOptions& options);

// Products of the linear layers and convolutions for a microbatch of `samples`, in all its passes, gates left out.
// Tokens of a mixture are taken to be spread evenly over its experts, or, where random routing sends a whole pass to
// one, to be there.
std::vector<ProductShape> training_products(const ModelOptions& options, Index samples);

// Of the two products inside attention and their backward pass, for one sample in all its passes.
double attention_training_flop(const ModelOptions& options);

}  // namespace switchyard
