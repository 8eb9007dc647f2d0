// A limit on MPI's own collectives, which wait without end for a rank that does not come: MPI_Init, MPI_Finalize, what
// makes communicators.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string_view>
#include <thread>

#include "core/types.hpp"

namespace switchyard {

class TimeLimit {
 public:
  // If it still lives when this process has waited so many seconds, and some for a roll call, a thread of its own says
  // that `rank` waited for the others in `what`, and ends the process with exit code 1: mpirun or srun then ends the
  // other ranks.
  TimeLimit(std::string_view what, int rank, Index seconds);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_changed_;
  bool over_ = false;  // what it limits is over
  std::thread thread_;
};

}  // namespace switchyard
