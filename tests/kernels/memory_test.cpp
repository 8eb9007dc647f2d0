#include "kernels/api/memory.hpp"

#include "core/error.hpp"
#include "kernel_test.hpp"
#include "kernels/api/arena.hpp"

namespace switchyard::kernels {
namespace {

// Not even where their number of bytes is none that can be told.
TEST(MemoryTest, MoreThanThereIsIsAnError) {
  for (const Index size : {Index{1} << 58, Index{1} << 61, Index{1} << 62, (Index{1} << 62) + 1}) {
    EXPECT_THROW(Array<float>(test_device(), size), Error) << size;
    EXPECT_THROW(Arena(test_device()).take<double>(size), Error) << size;
  }
}

}  // namespace
}  // namespace switchyard::kernels
