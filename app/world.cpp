#include "app/world.hpp"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "comm/mpi.hpp"

namespace switchyard {

bool speaks_without_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"})
    if (const char* rank = std::getenv(name); rank && std::string_view(rank) != "0") return false;
  return true;
}

World::World(int* argc, char*** argv) {
  int provided = 0;
  MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  comm_ = make_mpi_communicator(MPI_COMM_WORLD, Config().parallel.timeout);
}

World::~World() {
  // MPI_Finalize waits without end.
  try {
    barrier(*comm_, "end of the program");
  } catch (const Error& error) {
    fmt::print(stderr, "switchyard: rank {}: {}\n", rank(), error.what());
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(error.code()));
  }
  comm_.reset();
  // mpirun may kill this process as soon as another one has left.
  std::fflush(nullptr);
  MPI_Finalize();
}

}  // namespace switchyard
