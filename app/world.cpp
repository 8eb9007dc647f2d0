#include "app/world.hpp"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>

#include "comm/mpi.hpp"
#include "comm/time_limit.hpp"
#include "config/command_line.hpp"

namespace switchyard {

int rank_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"})
    if (const char* rank = std::getenv(name)) return std::atoi(rank);
  return 0;
}

World::World(int* argc, char*** argv) : timeout_(timeout_in({*argv + 1, *argv + *argc})) {
  {
    const TimeLimit limit("MPI_Init", rank_by_launcher(), timeout_);
    int provided = 0;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  }
  comm_ = make_mpi_communicator(MPI_COMM_WORLD, timeout_);
}

void World::set_timeout(Index seconds) {
  timeout_ = seconds;
  comm_->set_timeout(seconds);
}

World::~World() {
  const int rank = this->rank();
  try {
    barrier(*comm_, "end of the program");
  } catch (const Error& error) {
    std::fputs(fmt::format("switchyard: rank {}: {}\n", rank, error.what()).c_str(), stderr);
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(error.code()));
  }
  comm_.reset();
  // mpirun may kill this process as soon as another one has left.
  std::fflush(nullptr);
  const TimeLimit limit("MPI_Finalize", rank, timeout_);
  MPI_Finalize();
}

}  // namespace switchyard
