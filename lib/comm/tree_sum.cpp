#include "comm/tree_sum.hpp"

#include <algorithm>
#include <bit>

#include "core/error.hpp"

namespace switchyard {

TreeSum::TreeSum(Device device, Index num_leaves, Index block, std::vector<Index> part_sizes, float* total,
                 Index first) {
  const Index num_blocks = num_leaves / block;
  if (num_blocks * block != num_leaves || !std::has_single_bit(static_cast<std::uint64_t>(num_blocks)))
    fail("a reduction tree needs its leaves ({}) to be a power of two of blocks of {}", num_leaves, block);
  const int num_levels = std::bit_width(static_cast<std::uint64_t>(num_blocks));
  const int block_buffer = num_levels;  // the block being summed; needed where it has more than one leaf
  root_ = num_levels - 1;
  for (Index leaf_idx = 0; leaf_idx < num_leaves; ++leaf_idx) {
    Carry& carry = carries_.emplace_back();
    if (leaf_idx % block > 0) carry.earlier.push_back(block_buffer);
    if (leaf_idx % block < block - 1) {
      carry.out = block_buffer;
      continue;
    }
    for (Index rest = leaf_idx / block; rest & 1; rest >>= 1) carry.earlier.push_back(carry.out++);
  }
  offsets_.push_back(first);
  for (Index size : part_sizes) offsets_.push_back(offsets_.back() + size);
  state_.taken.assign(part_sizes.size(), 0);
  for (int buffer = 0; buffer < num_levels + (block > 1); ++buffer) {
    if (buffer != root_ || !total) arrays_.emplace_back(device, size());
    buffers_.push_back(buffer == root_ && total ? total : arrays_.back().data());
    state_.present.emplace_back(part_sizes.size(), 0);
  }
}

float* TreeSum::leaf(Index part, kernels::Arena& arena) {
  const Carry& next = carry(part);
  if (next.earlier.empty()) return data(next.out, part);
  return arena.take<float>(offset(part + 1) - offset(part));
}

kernels::TreeCarry TreeSum::take_leaf(Index part) {
  const Carry& next = carry(part);
  kernels::TreeCarry sum;
  sum.size = offset(part + 1) - offset(part);
  sum.out = data(next.out, part);
  for (int buffer : next.earlier) {
    if (present(buffer, part)) sum.earlier[static_cast<std::size_t>(sum.num_earlier++)] = data(buffer, part);
    present(buffer, part) = false;
  }
  present(next.out, part) = true;
  ++state_.taken[static_cast<std::size_t>(part)];
  return sum;
}

void TreeSum::add(const Context& context, Index part, const float* leaf) {
  kernels::TreeCarry sum = take_leaf(part);
  sum.last = leaf;
  if (sum.num_earlier > 0 || sum.last != sum.out) kernels::tree_carry(context, sum);
}

// The first of the earlier sums takes the leaf's place.
void TreeSum::skip(const Context& context, Index part) {
  const int out = carry(part).out;
  kernels::TreeCarry sum = take_leaf(part);
  present(out, part) = sum.num_earlier > 0;
  if (sum.num_earlier == 0) return;
  sum.last = sum.earlier[0];
  std::copy(sum.earlier.begin() + 1, sum.earlier.end(), sum.earlier.begin());
  --sum.num_earlier;
  if (sum.num_earlier > 0 || sum.last != sum.out) kernels::tree_carry(context, sum);
}

float* TreeSum::finish(const Context& context, Index first, Index end) {
  Index zeros = first;  // where the parts before the one at hand begin whose sums are all zero
  const auto fill_zeros = [&](Index zeros_end) {
    if (zeros < zeros_end)
      kernels::fill_zero(context, data(root_, zeros), (offset(zeros_end) - offset(zeros)) * Index{sizeof(float)});
    zeros = zeros_end + 1;
  };
  for (Index part = first; part < end; ++part) {
    Index& taken = state_.taken[static_cast<std::size_t>(part)];
    if (taken != std::ssize(carries_))
      fail("reduction tree: part {} has {} of its {} leaves", part, taken, carries_.size());
    taken = 0;
    if (present(root_, part)) fill_zeros(part);
    present(root_, part) = false;
  }
  fill_zeros(end);
  return data(root_, first);
}

Index TreeSum::complete_from(Index end) const {
  while (end > 0 && state_.taken[static_cast<std::size_t>(end - 1)] == std::ssize(carries_)) --end;
  return end;
}

}  // namespace switchyard
