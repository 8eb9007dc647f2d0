// Communicator whose arrays travel by NCCL, straight from GPU to GPU, and whose host memory by another communicator.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.hpp"

namespace switchyard {

// Whether this program was built with NCCL.
bool has_nccl();
// "NCCL 2.27.3"; empty where it was not.
std::string nccl_version();

// Every rank has chosen a GPU of its own before: NCCL does not share one among ranks. Collective over `host`.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host, Index timeout_seconds);

}  // namespace switchyard
