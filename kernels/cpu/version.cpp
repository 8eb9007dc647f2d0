#include "kernels/api/version.hpp"

namespace switchyard::kernels {

std::string library_version() {
#if defined(__AVX512BF16__)
  return "kernels for AVX-512 with bf16";
#elif defined(__AVX512F__)
  return "kernels for AVX-512";
#else
  return "kernels for AVX2 or less";
#endif
}

bool has_bf16_instructions() {
#ifdef __AVX512BF16__
  return true;
#else
  return false;
#endif
}

}  // namespace switchyard::kernels
