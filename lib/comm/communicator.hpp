// Ranks that exchange memory. Every collective (collectives.hpp) is made of one primitive, a set of transfers between
// this rank and its peers: Isend and Irecv over MPI, memcpy in a world of one, grouped send and receive over NCCL.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard {

struct Transfer {
  int peer = 0;  // a rank of this communicator; this rank itself: a copy
  const void* send = nullptr;
  Index send_bytes = 0;
  void* receive = nullptr;
  Index receive_bytes = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }
  // The world rank of each rank here: what messages to the user name.
  const std::vector<int>& world_ranks() const { return world_ranks_; }
  // The kind of memory that transfers may name.
  virtual Device memory() const = 0;

  // Ranks that give the same color, in their order here. Collective.
  virtual std::unique_ptr<Communicator> split(int color) const = 0;

  // All transfers at once, at most one a peer; both sides give the same sizes. Returns when all are done. Fails after
  // the communicator's time-out, naming `what` and the ranks that are missing.
  virtual void exchange(std::string_view what, std::span<const Transfer> transfers) = 0;

  // The library's own sum over ranks, in whatever order: parallel.reduction = library.
  virtual void all_reduce(float* data, Index size) = 0;

 protected:
  Communicator(int rank, std::vector<int> world_ranks) : rank_(rank), world_ranks_(std::move(world_ranks)) {}

 private:
  int rank_;
  std::vector<int> world_ranks_;
};

// A world of one rank, without MPI.
std::unique_ptr<Communicator> make_local_communicator();

}  // namespace switchyard
