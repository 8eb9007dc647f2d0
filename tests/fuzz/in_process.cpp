// libFuzzer's entry, for readers of our own code alone.
#include <cstdint>

#include "fuzz/harness.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  switchyard::fuzz::tolerate_errors([&] { switchyard::read_input({reinterpret_cast<const char*>(data), size}); });
  return 0;
}
