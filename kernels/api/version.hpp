#pragma once

#include <string>

namespace switchyard::kernels {

// Of what the bits of the kernels' results may depend on: "kernels for AVX-512 with bf16".
std::string library_version();

}  // namespace switchyard::kernels
