// This rank's part of the fixed reduction tree over microbatches. With m * 2^b leaves: blocks of m are summed left to
// right, and block sums by the balanced binary tree, kept as a binary counter with one buffer a level. The tree's shape
// depends on the number of leaves alone, so ranks that own aligned runs of leaves together build the whole batch's
// tree.
#pragma once

#include <cstdint>
#include <vector>

#include "core/context.hpp"
#include "kernels/api/arena.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/api/reduce.hpp"

namespace switchyard {

class TreeSum {
 public:
  // A sum over `num_leaves` = `block` * 2^b arrays of the same layout: consecutive parts of the given sizes, each of
  // which receives its leaves on its own. total: device memory for the result, of size() elements; null: an array of
  // its own. In each array the first part begins at element `first`.
  TreeSum(Device device, Index num_leaves, Index block, std::vector<Index> part_sizes, float* total = nullptr,
          Index first = 0);

  // Where the part's next leaf is to be written, before add(): a buffer of the tree, or scratch from the arena that
  // must live until then.
  float* leaf(Index part, kernels::Arena& arena);
  void add(const Context& context, Index part, const float* leaf);
  // Instead of both: where the part's next leaf, once it is known, is to be added at once; last is left to set.
  kernels::TreeCarry take_leaf(Index part);
  // The next leaf is zero, and nothing was written.
  void skip(const Context& context, Index part);

  // The sums of parts [first, end), which lie one after the other, once each has had all its leaves; the next leaf
  // starts a new sum.
  float* finish(const Context& context, Index first, Index end);
  float* finish(const Context& context) { return finish(context, 0, num_parts()); }
  // The first part from which on, up to `end`, each has had all its leaves.
  Index complete_from(Index end) const;

  // What leaves have changed beside the sums in memory. Who has leaves added by launches recorded before gives it the
  // state that it had after these.
  struct State {
    std::vector<Index> taken;                        // leaves so far, by part
    std::vector<std::vector<std::uint8_t>> present;  // [buffer][part]: holds a sum that is not known to be zero
    bool operator==(const State&) const = default;
  };
  const State& state() const { return state_; }
  void set_state(const State& state) { state_ = state; }

  Index num_parts() const { return std::ssize(offsets_) - 1; }
  Index size() const { return offsets_.back(); }  // with what is before the first part
  Index offset(Index part) const { return offsets_[static_cast<std::size_t>(part)]; }

 private:
  struct Carry {
    std::vector<int> earlier;  // buffers that the leaf is added to, in order
    int out = 0;               // buffer that takes the sum
  };
  const Carry& carry(Index part) const {
    return carries_[static_cast<std::size_t>(state_.taken[static_cast<std::size_t>(part)])];
  }
  float* data(int buffer, Index part) { return buffers_[static_cast<std::size_t>(buffer)] + offset(part); }
  std::uint8_t& present(int buffer, Index part) {
    return state_.present[static_cast<std::size_t>(buffer)][static_cast<std::size_t>(part)];
  }
  std::vector<Carry> carries_;  // by leaf
  std::vector<Index> offsets_;  // of parts, then the end
  std::vector<kernels::Array<float>> arrays_;
  std::vector<float*> buffers_;  // in arrays_, but for the total
  State state_;
  int root_ = 0;
};

}  // namespace switchyard
