// Sums over rows, such as the gradient of a bias: each row block sums its own rows in order into a row of partial
// sums, and the partial sums are added in block order. So the bits depend on the shape alone.
#pragma once

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels::cpu {

// The calling thread's buffer for partial sums (num_blocks, cols), all zero. Valid until the next call on this thread.
float* zeroed_partial_sums(Index num_blocks, Index cols);

// sums[c] = partial_sums[0, c] + partial_sums[1, c] + ...; zeros where num_blocks = 0. stride: elements from
// one block's partial sums to the next one's.
void add_partial_sums(Index num_blocks, Index cols, const float* partial_sums, Index stride, float* sums);

}  // namespace switchyard::kernels::cpu
