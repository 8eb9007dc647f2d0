// Two-layer convolutional networks over patches that do not overlap (Chen et al., 2208.02813), but for the convolution
// itself, which is a matrix product: hidden[r, p] = W x[r, p], W (filters, in). Filters belong to classes in equal
// shares, the first ones to class 0; classes divides filters.
#pragma once

#include "core/context.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard::kernels {

// y[r, c] = sum over patches p and the filters j of class c of activation(hidden[r, p, j] + bias[j])
struct PatchPool {
  Index rows = 0, patches = 0, filters = 0, classes = 0;
  Activation activation = Activation::kCube;
  const float* hidden = nullptr;  // (rows, patches, filters)
  const float* bias = nullptr;    // (filters)
  float* y = nullptr;             // (rows, classes)
};
void patch_pool(const Context& context, const PatchPool& args);

// d_bias = the sum of d_hidden over rows and patches.
struct PatchPoolBackward {
  Index rows = 0, patches = 0, filters = 0, classes = 0;
  Activation activation = Activation::kCube;
  const float* hidden = nullptr;  // (rows, patches, filters)
  const float* bias = nullptr;    // (filters)
  const float* d_y = nullptr;     // (rows, classes)
  float* d_hidden = nullptr;      // (rows, patches, filters); may be hidden
  float* d_bias = nullptr;        // (filters), overwritten (zeros where rows = 0)
};
void patch_pool_backward(const Context& context, const PatchPoolBackward& args);

// y[r, i] = sum over patches p, in order, of x[r, p, i]
struct PatchSum {
  Index rows = 0, patches = 0, cols = 0;
  const float* x = nullptr;  // (rows, patches, cols)
  float* y = nullptr;        // (rows, cols)
};
void patch_sum(const Context& context, const PatchSum& args);

}  // namespace switchyard::kernels
