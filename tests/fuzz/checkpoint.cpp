// A checkpoint: described, and loaded with the arrays that it says it has.
#include <cstring>

#include "core/ranks.hpp"
#include "fuzz/harness.hpp"
#include "io/checkpoint.hpp"

namespace switchyard {
namespace {

class OneRank : public Ranks {
 public:
  OneRank() : Ranks(0, {0}) {}
  void exchange(std::string_view, std::span<const Transfer> transfers) override {
    for (const Transfer& each : transfers)
      if (each.send_bytes > 0) std::memcpy(each.receive, each.send, static_cast<std::size_t>(each.send_bytes));
  }
};

Index num_elements(const std::vector<Index>& shape) {
  Index product = 1;
  for (const Index extent : shape) product *= extent;
  return product;
}

}  // namespace

void read_input(std::string_view bytes) {
  const fuzz::Folder folder;
  const std::string path = folder.write("checkpoint-00000001.h5", bytes);
  fuzz::tolerate_errors([&] { io::read_checkpoint_info(path); });
  const io::CheckpointSummary summary = io::describe_checkpoint(path);
  if (!summary.verifies) return;

  std::vector<std::vector<float>> values;
  std::vector<io::ArraySlice> slices;
  for (const io::ArraySummary& array : summary.arrays) {
    values.emplace_back(static_cast<std::size_t>(num_elements(array.shape)));
    slices.push_back({array.name, array.shape, array.per_expert, 0, array.shape[0], values.back().data()});
  }
  OneRank ranks;
  const io::CheckpointInfo info = io::load_checkpoint(ranks, path, slices);
  fuzz::require(info.attributes == summary.info.attributes, "a checkpoint loads as it is described");
}

}  // namespace switchyard
