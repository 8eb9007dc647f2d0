// Preloaded into a program under mpirun (LD_PRELOAD), by MPI's profiling interface: rank STOP_RANK sends itself SIGSTOP
// when it first calls the function of MPI that STOP_IN names.
#include <mpi.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

namespace {

void stop_in(const char* function) {
  static bool stopped = false;
  const char* const wanted = std::getenv("STOP_IN");
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  const char* const stops = std::getenv("STOP_RANK");
  if (stopped || !wanted || !rank || !stops || std::strcmp(wanted, function) != 0 || std::strcmp(rank, stops) != 0)
    return;
  stopped = true;
  std::raise(SIGSTOP);
}

}  // namespace

extern "C" {

int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  stop_in("MPI_Init");
  return PMPI_Init_thread(argc, argv, required, provided);
}

int MPI_Comm_dup(MPI_Comm parent, MPI_Comm* made) {
  stop_in("MPI_Comm_dup");
  return PMPI_Comm_dup(parent, made);
}

int MPI_Comm_split(MPI_Comm parent, int color, int key, MPI_Comm* made) {
  stop_in("MPI_Comm_split");
  return PMPI_Comm_split(parent, color, key, made);
}

int MPI_Finalize() {
  stop_in("MPI_Finalize");
  return PMPI_Finalize();
}
}
