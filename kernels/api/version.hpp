#pragma once

#include <string>

#include "core/context.hpp"

namespace switchyard::kernels {

// Of what the bits of the kernels' results may depend on: "kernels for AVX-512 with bf16".
std::string library_version();
// The same of a device's libraries: "CUDA runtime 13.0, driver for CUDA 13.0, cuBLASLt 130100". CPU: empty.
std::string device_libraries(Device device);
// Whether this program's products in bf16 have instructions of their own; without them they are slower than fp32.
bool has_bf16_instructions();

// The algorithms chosen so far for matrix products, one a line, with the library's version: what their bits depend on
// beside the operands. CUDA: a line for each shape, which for experts means each number of rows. CPU: empty.
std::string product_algorithms(Device device);

}  // namespace switchyard::kernels
