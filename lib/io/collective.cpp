#include "io/collective.hpp"

#include <algorithm>
#include <climits>
#include <cstdint>

#include "core/error.hpp"

namespace switchyard::io {

int rank_of(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

void agree(MPI_Comm comm, const std::string& problem) {
  int num_ranks = 1;
  MPI_Comm_size(comm, &num_ranks);
  const int mine = problem.empty() ? INT_MAX : rank_of(comm);
  int first = INT_MAX;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, comm);
  if (first == INT_MAX) return;
  std::string message = problem;
  int length = static_cast<int>(message.size());
  MPI_Bcast(&length, 1, MPI_INT, first, comm);
  message.resize(static_cast<std::size_t>(length));
  MPI_Bcast(message.data(), length, MPI_CHAR, first, comm);
  if (first != kRoot) message = fmt::format("rank {}: {}", first, message);
  throw Error(message);
}

void broadcast(MPI_Comm comm, float* data, std::size_t count) {
  constexpr std::size_t kMaxCount = std::size_t{1} << 28;  // MPI counts are ints
  for (std::size_t done = 0; done < count; done += kMaxCount)
    MPI_Bcast(data + done, static_cast<int>(std::min(kMaxCount, count - done)), MPI_FLOAT, kRoot, comm);
}

void broadcast(MPI_Comm comm, std::string& text) {
  std::uint64_t length = text.size();
  MPI_Bcast(&length, 1, MPI_UINT64_T, kRoot, comm);
  text.resize(length);
  MPI_Bcast(text.data(), static_cast<int>(length), MPI_CHAR, kRoot, comm);
}

}  // namespace switchyard::io
