// The ranks that run a subcommand, and how they agree on errors.
#pragma once

#include <memory>

#include "comm/collectives.hpp"
#include "comm/communicator.hpp"
#include "config/config.hpp"
#include "core/agreement.hpp"

namespace switchyard {

// Whether this process prints where MPI has not started: it is rank 0 by what mpirun, or srun with PMIx, told it, or
// was started by itself.
bool speaks_without_mpi();

// MPI from construction to destruction.
class World {
 public:
  World(int* argc, char*** argv);
  // Waits for all ranks, and ends them if one does not come.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return comm_->rank(); }
  int size() const { return comm_->size(); }
  bool speaks() const { return rank() == 0; }
  // Its time-out is parallel.timeout's default until a subcommand that has read the configuration sets another.
  Communicator& comm() { return *comm_; }

  template <typename Body>
  auto together(const Body& body) {
    return switchyard::together(*comm_, "agreement on errors", body);
  }

  // For training and evaluating: a loss that is not finite is so on every rank, any other failure may be one rank's.
  template <typename Body>
  auto diverging_alike(const Body& body) -> decltype(body()) {
    try {
      return body();
    } catch (const Error& error) {
      if (error.code() != ExitCode::kDiverged) throw;
      throw AgreedError(error.what(), error.code());
    }
  }

 private:
  std::unique_ptr<Communicator> comm_;
};

}  // namespace switchyard
