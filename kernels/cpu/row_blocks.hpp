// How passes over rows or elements are cut for threads: by the shape alone.
#pragma once

#include <algorithm>
#include <span>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels::cpu {

constexpr Index kMaxRowBlocks = 32;
constexpr Index kMinBlockRows = 16;

constexpr Index rows_per_block(Index rows) { return std::max(kMinBlockRows, ceil_div(rows, kMaxRowBlocks)); }
constexpr Index num_row_blocks(Index rows) { return ceil_div(rows, rows_per_block(rows)); }

// body(block_idx, first_row, end_row)
template <typename Body>
void for_row_blocks(const Context& context, Index rows, const Body& body) {
  const Index step = rows_per_block(rows);
  context.threads->parallel_for(num_row_blocks(rows), [&](Index block_idx) {
    body(block_idx, block_idx * step, std::min(rows, (block_idx + 1) * step));
  });
}

template <typename Segment>
Index num_row_blocks(std::span<const Segment> segments) {
  Index sum = 0;
  for (const Segment& segment : segments) sum += num_row_blocks(segment.rows);
  return sum;
}

// Of several arrays, each cut as by itself: body(segment, block_idx, first_row, end_row), where block_idx counts the
// blocks of all.
template <typename Segment, typename Body>
void for_row_blocks(const Context& context, std::span<const Segment> segments, const Body& body) {
  context.threads->parallel_for(num_row_blocks(segments), [&](Index block_idx) {
    const Segment* segment = segments.data();
    Index own_idx = block_idx;
    for (; own_idx >= num_row_blocks(segment->rows); ++segment) own_idx -= num_row_blocks(segment->rows);
    const Index step = rows_per_block(segment->rows);
    body(*segment, block_idx, own_idx * step, std::min(segment->rows, (own_idx + 1) * step));
  });
}

// body(row)
template <typename Body>
void for_rows(const Context& context, Index rows, const Body& body) {
  for_row_blocks(context, rows, [&](Index, Index first_row, Index end_row) {
    for (Index row = first_row; row < end_row; ++row) body(row);
  });
}

// Flat arrays: blocks that fit the first-level cache of several arrays at once.
constexpr Index kElementsPerBlock = 16384;

// body(first_element, end_element)
template <typename Body>
void for_element_blocks(const Context& context, Index size, const Body& body) {
  context.threads->parallel_for(ceil_div(size, kElementsPerBlock), [&](Index block_idx) {
    body(block_idx * kElementsPerBlock, std::min(size, (block_idx + 1) * kElementsPerBlock));
  });
}

}  // namespace switchyard::kernels::cpu
