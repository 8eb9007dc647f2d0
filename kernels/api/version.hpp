#pragma once

#include <string>

#include "core/context.hpp"

namespace switchyard::kernels {

// Of what the bits of the kernels' results may depend on: "kernels for AVX-512 with bf16".
std::string library_version();
// Whether this program's products in bf16 have instructions of their own; without them they are slower than fp32.
bool has_bf16_instructions();

// The algorithms chosen so far for matrix products, one a line, with the library's version: what their bits depend on
// beside the operands. CUDA: a line for each shape, which for experts means each number of rows. CPU: empty.
std::string product_algorithms(Device device);

}  // namespace switchyard::kernels
