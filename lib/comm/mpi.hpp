// Communicator over MPI, for host memory.
#pragma once

#include <mpi.h>

#include <memory>

#include "comm/communicator.hpp"

namespace switchyard {

// Works on a duplicate of `parent`. MPI must be initialised with MPI_THREAD_FUNNELED or more; all calls come from one
// thread.
std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm parent, Index timeout_seconds);

}  // namespace switchyard
