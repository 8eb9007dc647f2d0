// Who is missing when a rank has waited too long? The rank that it waits for may be there, itself waiting for another.
// So ranks that wait answer each other with the ranks that they wait for, and the one that asks follows these to the
// ranks that give no answer.
#pragma once

#include <mpi.h>

#include <optional>
#include <set>

namespace switchyard {

class RollCall {
 public:
  // Over a duplicate of `parent`, whose ranks are those named here.
  explicit RollCall(MPI_Comm parent);
  ~RollCall();
  RollCall(const RollCall&) = delete;
  RollCall& operator=(const RollCall&) = delete;

  // A rank that asks whom this one waits for, if there is one; it is to be answered.
  std::optional<int> next_asker();
  void answer(int asker, const std::set<int>& waits_for);

  // Asks, for a few seconds. Empty: all are there, and wait for one another.
  std::set<int> missing(const std::set<int>& waits_for);

 private:
  void ask(int rank);
  std::optional<std::set<int>> next_answer(std::set<int>& silent);

  MPI_Comm comm_ = MPI_COMM_NULL;
};

}  // namespace switchyard
