// One outcome for all ranks: a failure on any rank is thrown on every rank, so that none waits for another that left.
#pragma once

#include <exception>
#include <string>

#include <mpi.h>

namespace switchyard::io {

inline constexpr int kRoot = 0;

int rank_of(MPI_Comm comm);

// Collective. Throws on every rank if any rank's `problem` is not empty: that of the lowest such rank, which it names.
void agree(MPI_Comm comm, const std::string& problem);

// Collective. Runs `phase` on each rank, then agrees.
template <typename Phase>
void together(MPI_Comm comm, const Phase& phase) {
  std::string problem;
  try {
    phase();
  } catch (const std::exception& error) {
    problem = error.what();
    if (problem.empty()) problem = "unknown error";
  }
  agree(comm, problem);
}

// The same for a phase that only rank 0 runs.
template <typename Phase>
void on_root(MPI_Comm comm, const Phase& phase) {
  together(comm, [&] {
    if (rank_of(comm) == kRoot) phase();
  });
}

// Collective; `count` elements of any size, from rank 0.
void broadcast(MPI_Comm comm, float* data, std::size_t count);
void broadcast(MPI_Comm comm, std::string& text);

}  // namespace switchyard::io
