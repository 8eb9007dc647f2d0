// MPI_Alltoallv and nothing around it: what a benchmark measures the exchange against. Unlike a Communicator it waits
// without end for a rank that does not come.
#pragma once

#include <mpi.h>

#include <span>
#include <vector>

#include "comm/communicator.hpp"

namespace switchyard {

class BareAllToAll {
 public:
  // Among the ranks of `group`. Collective over MPI_COMM_WORLD: every rank gives the group that it is in.
  explicit BareAllToAll(Communicator& group);
  ~BareAllToAll();
  BareAllToAll(const BareAllToAll&) = delete;
  BareAllToAll& operator=(const BareAllToAll&) = delete;

  // A message to and from each rank, in rank order, as often as it is wanted.
  struct Messages {
    std::vector<int> send_bytes, send_places, receive_bytes, receive_places;  // by rank
  };
  // Rows of row_bytes bytes. Fails where MPI's counts cannot hold them.
  static Messages messages(std::span<const Index> send_rows, std::span<const Index> receive_rows, Index row_bytes);

  void run(const void* send, void* receive, const Messages& messages) const;

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

}  // namespace switchyard
