#include "comm/bare_all_to_all.hpp"

#include <limits>

#include "core/error.hpp"

namespace switchyard {

namespace {

void check(int code) {
  if (code != MPI_SUCCESS) fail("bare MPI_Alltoallv: MPI reports error {}", code);
}

void place(std::span<const Index> rows, Index row_bytes, std::vector<int>& bytes, std::vector<int>& places) {
  Index end = 0;
  for (Index each : rows) {
    places.push_back(static_cast<int>(end));
    bytes.push_back(static_cast<int>(each * row_bytes));
    end += each * row_bytes;
    if (end > std::numeric_limits<int>::max())
      fail("bare MPI_Alltoallv: its counts end at 2 GiB a rank: take a smaller model.width or train.microbatch");
  }
}

}  // namespace

BareAllToAll::BareAllToAll(Communicator& group) {
  barrier(group, "bare MPI_Alltoallv");  // the next call would wait for missing ranks without end
  check(MPI_Comm_split(MPI_COMM_WORLD, group.world_ranks().front(), group.rank(), &comm_));
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
}

BareAllToAll::~BareAllToAll() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Comm_free(&comm_);
}

BareAllToAll::Messages BareAllToAll::messages(std::span<const Index> send_rows, std::span<const Index> receive_rows,
                                              Index row_bytes) {
  Messages messages;
  place(send_rows, row_bytes, messages.send_bytes, messages.send_places);
  place(receive_rows, row_bytes, messages.receive_bytes, messages.receive_places);
  return messages;
}

void BareAllToAll::run(const void* send, void* receive, const Messages& messages) const {
  check(MPI_Alltoallv(send, messages.send_bytes.data(), messages.send_places.data(), MPI_BYTE, receive,
                      messages.receive_bytes.data(), messages.receive_places.data(), MPI_BYTE, comm_));
}

}  // namespace switchyard
