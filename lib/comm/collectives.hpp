// The collectives in use, over Communicator's one primitive. Except for tree_reduce's arithmetic they move bytes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/context.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

// Rank i receives what each rank sends to i, in rank order. Counts are rows of row_bytes bytes, one per rank.
void all_to_all_v(Communicator& comm, std::string_view what, const void* send, std::span<const Index> send_rows,
                  void* receive, std::span<const Index> receive_rows, Index row_bytes);

// data = the sum over ranks by the balanced binary tree over ranks in order, the same bits on every rank (recursive
// halving, then doubling: Rabenseifner, 2004). The number of ranks is a power of two. scratch: at least (size + 1) / 2.
void tree_reduce(const Context& context, Communicator& comm, std::string_view what, float* data, Index size,
                 float* scratch);

// receive holds every rank's `bytes` bytes in rank order, on every rank.
void all_gather(Communicator& comm, std::string_view what, const void* send, Index bytes, void* receive);

void broadcast(Communicator& comm, std::string_view what, void* data, Index bytes, int root);
void barrier(Communicator& comm, std::string_view what);

// Host memory of any length from every rank to rank 0, in rank order (empty on the others).
std::vector<std::string> gather_texts(Communicator& comm, std::string_view what, const std::string& text);
// Rank 0's text, on every rank.
std::string broadcast_text(Communicator& comm, std::string_view what, const std::string& text);

// Fails where the communicator cannot name the context's memory.
void require_memory(const Communicator& comm, Device device, std::string_view what);

}  // namespace switchyard
