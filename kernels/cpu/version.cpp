#include "kernels/api/version.hpp"

#include <fmt/format.h>

namespace switchyard::kernels {

std::string library_version() {
#if defined(__AVX512BF16__)
  constexpr const char* kInstructions = "AVX-512 with bf16";
#elif defined(__AVX512F__)
  constexpr const char* kInstructions = "AVX-512";
#else
  constexpr const char* kInstructions = "AVX2 or less";
#endif
  return fmt::format("kernels for {}", kInstructions);
}

}  // namespace switchyard::kernels
