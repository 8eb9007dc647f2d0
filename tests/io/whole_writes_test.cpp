// A process that is killed inside a write leaves those pages of 4 KB that were written, so that what lies on two pages
// may be half old. HDF5's metadata have checksums: a half-old object header is a damaged file. They lie in one page.
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "io/results.hpp"
#include "support.hpp"

namespace {

constexpr off_t kPage = 4096;

struct Write {
  off_t offset;
  std::size_t bytes;
};
std::vector<Write> writes;

bool crosses_a_page(const Write& write) {
  return write.offset / kPage != (write.offset + static_cast<off_t>(write.bytes) - 1) / kPage;
}

}  // namespace

// In place of the C library's: HDF5 writes by it.
extern "C" ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  writes.push_back({offset, bytes});
  const iovec piece = {const_cast<void*>(data), bytes};
  return pwritev(fd, &piece, 1, offset);
}

namespace switchyard::io::testing {
namespace {

// Of layers and experts, trees and leaves: rows of many sizes.
class WholeWrites : public ::testing::TestWithParam<ResultsShape> {};

TEST_P(WholeWrites, AFlushWritesNoMetadataAcrossPages) {
  const ResultsShape shape = GetParam();
  const TemporaryFolder folder;
  ResultsWriter writer = ResultsWriter::create(folder / "run.h5", {{"config", "[run]\n"}}, shape);
  const auto layers = static_cast<std::size_t>(shape.layers), experts = static_cast<std::size_t>(shape.experts),
             trees = static_cast<std::size_t>(shape.tree_layers), leaves = static_cast<std::size_t>(shape.leaves);
  const std::vector<float> of_experts(layers * experts), of_layers(layers), of_nodes(trees * (leaves - (trees > 0))),
      of_leaves(trees * leaves);
  constexpr Index kSteps = 5000;  // some chunks of 1024 rows
  writer.flush();
  writes.clear();
  for (Index step = 1; step <= kSteps; ++step) {
    writer.append(StepRow{.step = step});
    if (step % 10 == 0) writer.append(EvaluationRow{.step = step});
    if (layers > 0)
      writer.append(
          RoutingRow{step, of_experts, of_experts, of_experts, of_layers, of_layers, of_layers, of_layers, of_layers});
    if (trees > 0) writer.append(TreeRow{step, of_nodes, of_leaves});
    if (step % 50 == 0) writer.flush();
  }
  // Whole chunks of rows, which have no checksums, are larger than any piece of metadata here.
  constexpr std::size_t kSmallestChunk = 8192;
  const auto is_torn = [](const Write& write) { return write.bytes < kSmallestChunk && crosses_a_page(write); };
  EXPECT_GT(writes.size(), 1000u) << "HDF5 writes by another function";
  EXPECT_EQ(std::count_if(writes.begin(), writes.end(), is_torn), 0);
  for (const Write& write : writes)
    if (is_torn(write)) GTEST_FAIL() << write.bytes << " bytes at " << write.offset;
}

INSTANTIATE_TEST_SUITE_P(Shapes, WholeWrites,
                         ::testing::Values(ResultsShape{}, ResultsShape{2, 3}, ResultsShape{12, 64},
                                           ResultsShape{0, 0, 3, 128}));

}  // namespace
}  // namespace switchyard::io::testing
