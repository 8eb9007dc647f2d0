// Ranks that exchange bytes of host memory, and the collectives that only move bytes. What it takes to work together on
// a file or an error; a Communicator (lib/comm) is such ranks, and more.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

struct Transfer {
  int peer = 0;  // a rank among these; this rank itself: a copy
  const void* send = nullptr;
  Index send_bytes = 0;
  void* receive = nullptr;
  Index receive_bytes = 0;
};

class Ranks {
 public:
  virtual ~Ranks() = default;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }
  // The world rank of each rank here: what messages to the user name.
  const std::vector<int>& world_ranks() const { return world_ranks_; }

  // All transfers at once, at most one a peer; both sides give the same sizes. Returns when all are done. Fails after
  // the time-out, naming `what` and the ranks that are missing.
  virtual void exchange(std::string_view what, std::span<const Transfer> transfers) = 0;

 protected:
  Ranks(int rank, std::vector<int> world_ranks) : rank_(rank), world_ranks_(std::move(world_ranks)) {}

 private:
  int rank_;
  std::vector<int> world_ranks_;
};

// receive holds every rank's `bytes` bytes in rank order, on every rank.
void all_gather(Ranks& ranks, std::string_view what, const void* send, Index bytes, void* receive);

void broadcast(Ranks& ranks, std::string_view what, void* data, Index bytes, int root);
void barrier(Ranks& ranks, std::string_view what);
// Whether `mine` holds on any rank, on every rank. As quick as a barrier.
bool any(Ranks& ranks, std::string_view what, bool mine);

// Texts of any length from every rank to rank 0, in rank order (empty on the others).
std::vector<std::string> gather_texts(Ranks& ranks, std::string_view what, const std::string& text);
// Rank 0's text, on every rank.
std::string broadcast_text(Ranks& ranks, std::string_view what, const std::string& text);

}  // namespace switchyard
