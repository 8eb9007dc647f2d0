// libFuzzer's entry, for readers of our own code alone.
#include <cstdint>

#include "fuzz/harness.hpp"

// For speed: half of an input's time would go into memory that is kept from use for long.
extern "C" const char* __asan_default_options() { return "malloc_context_size=8:quarantine_size_mb=4"; }

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  switchyard::fuzz::tolerate_errors([&] { switchyard::read_input({reinterpret_cast<const char*>(data), size}); });
  return 0;
}
