// The ranks that run a subcommand, and how they agree on errors.
#pragma once

#include <memory>

#include "comm/collectives.hpp"
#include "comm/communicator.hpp"
#include "config/config.hpp"
#include "core/agreement.hpp"

namespace switchyard {

// The rank that mpirun, or srun with PMIx, gave to this process, known before MPI starts; 0 where it was started alone.
int rank_by_launcher();

// MPI from construction to destruction. Ends all ranks if one does not come to either.
class World {
 public:
  World(int* argc, char*** argv);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return comm_->rank(); }
  int size() const { return comm_->size(); }
  bool speaks() const { return rank() == 0; }
  Communicator& comm() { return *comm_; }
  // parallel.timeout, of comm() and of MPI's end. From the start it is what the command line and its files say, its
  // default where they cannot be read: the subcommand then says why.
  void set_timeout(Index seconds);

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
  Index timeout_;
  std::unique_ptr<Communicator> comm_;
};

}  // namespace switchyard
