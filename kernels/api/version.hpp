#pragma once

#include <string>

namespace switchyard::kernels {

// Of what the bits of the kernels' results may depend on: "kernels for AVX-512 with bf16".
std::string library_version();
// Whether this program's products in bf16 have instructions of their own; without them they are slower than fp32.
bool has_bf16_instructions();

}  // namespace switchyard::kernels
