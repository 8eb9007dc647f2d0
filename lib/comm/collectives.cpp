#include "comm/collectives.hpp"

#include <vector>

#include "core/error.hpp"
#include "kernels/api/reduce.hpp"

namespace switchyard {

namespace {

// left + right into left: which of the two is whose does not matter to the bits.
void add(const Context& context, float* left, const float* right, Index size) {
  kernels::TreeCarry sum;
  sum.size = size;
  sum.num_earlier = 1;
  sum.earlier[0] = right;
  sum.last = left;
  sum.out = left;
  kernels::tree_carry(context, sum);
}

}  // namespace

void all_to_all_v(const Context& context, Communicator& comm, std::string_view what, const void* send,
                  std::span<const Index> send_rows, void* receive, std::span<const Index> receive_rows, Index row_bytes,
                  const Communicator::Meanwhile& meanwhile) {
  std::vector<Transfer> transfers(static_cast<std::size_t>(comm.size()));
  const auto* from = static_cast<const std::byte*>(send);
  auto* to = static_cast<std::byte*>(receive);
  for (int peer = 0; peer < comm.size(); ++peer) {
    const auto i = static_cast<std::size_t>(peer);
    transfers[i] = {peer, from, send_rows[i] * row_bytes, to, receive_rows[i] * row_bytes};
    from += transfers[i].send_bytes;
    to += transfers[i].receive_bytes;
  }
  comm.exchange_arrays(context, what, transfers, meanwhile);
}

void gather_arrays(const Context& context, Communicator& comm, std::string_view what, const void* send, Index bytes,
                   void* receive) {
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < comm.size(); ++peer)
    transfers.push_back({peer, send, bytes, static_cast<std::byte*>(receive) + peer * bytes, bytes});
  comm.exchange_arrays(context, what, transfers);
}

void tree_reduce(const Context& context, Communicator& comm, std::string_view what, float* data, Index size,
                 float* scratch) {
  const int ranks = comm.size();
  if ((ranks & (ranks - 1)) != 0) fail("{}: {} ranks, but the reduction tree needs a power of two", what, ranks);
  // Neighbours first, so that the sum of ranks 0 and 1 meets that of 2 and 3. Rank r keeps the lower half where its bit
  // of this level is 0.
  struct Part {
    Index first, size;
  };
  std::vector<Part> parts{{0, size}};  // what this rank held before each level
  for (int distance = 1; distance < ranks; distance *= 2) {
    const Part whole = parts.back();
    const Part lower{whole.first, whole.size / 2};
    const Part upper{whole.first + lower.size, whole.size - lower.size};
    const bool keeps_lower = (comm.rank() & distance) == 0;
    const Part kept = keeps_lower ? lower : upper, given = keeps_lower ? upper : lower;
    const Transfer transfer{comm.rank() ^ distance, data + given.first, given.size * 4, scratch, kept.size * 4};
    comm.exchange_arrays(context, what, std::span(&transfer, 1));
    add(context, data + kept.first, scratch, kept.size);
    parts.push_back(kept);
  }
  for (int distance = ranks / 2; distance >= 1; distance /= 2) {
    const Part held = parts.back();
    parts.pop_back();
    const Part whole = parts.back();
    const Part missing = held.first == whole.first ? Part{held.first + held.size, whole.size - held.size}
                                                   : Part{whole.first, whole.size - held.size};
    const Transfer transfer{comm.rank() ^ distance, data + held.first, held.size * 4, data + missing.first,
                            missing.size * 4};
    comm.exchange_arrays(context, what, std::span(&transfer, 1));
  }
}

}  // namespace switchyard
