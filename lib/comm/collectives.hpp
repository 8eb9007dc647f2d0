// The collectives over arrays in the context's memory; core/ranks.hpp has those over host memory.
#pragma once

#include <span>
#include <string_view>

#include "comm/communicator.hpp"
#include "core/context.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

// Rank i receives what each rank sends to i, in rank order. Counts are rows of row_bytes bytes, one per rank.
// meanwhile: as in Communicator::exchange_arrays().
void all_to_all_v(
    const Context& context, Communicator& comm, std::string_view what, const void* send,
    std::span<const Index> send_rows, void* receive, std::span<const Index> receive_rows, Index row_bytes,
    const Communicator::Meanwhile& meanwhile = [] {});

// receive holds every rank's `bytes` bytes in rank order, on every rank.
void gather_arrays(const Context& context, Communicator& comm, std::string_view what, const void* send, Index bytes,
                   void* receive);

// data = the sum over ranks by the balanced binary tree over ranks in order, the same bits on every rank (recursive
// halving, then doubling: Rabenseifner, 2004). The number of ranks is a power of two. scratch: at least (size + 1) / 2.
void tree_reduce(const Context& context, Communicator& comm, std::string_view what, float* data, Index size,
                 float* scratch);

}  // namespace switchyard
