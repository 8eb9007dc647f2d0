// Who is missing when a rank has waited too long? The rank that it waits for may be there, itself waiting for another.
// So ranks that wait answer each other with the ranks that they wait for, and the one that asks follows these to the
// ranks that give no answer.
#pragma once

#include <mpi.h>

#include <deque>
#include <optional>
#include <set>

#include "core/clock.hpp"

namespace switchyard {

class RollCall {
 public:
  // Seconds that call() waits for an answer. A rank that waits looks for questions several times a second; more than
  // that where cores have many ranks to serve.
  static constexpr double kPatience = 2;

  // Over a duplicate of `parent`, whose ranks are those named here.
  explicit RollCall(MPI_Comm parent);
  ~RollCall();
  RollCall(const RollCall&) = delete;
  RollCall& operator=(const RollCall&) = delete;

  // What a rank answers.
  struct Wait {
    std::set<int> ranks;  // that it waits for
    double seconds = 0;   // that it has waited so far
  };
  struct Question {
    int asker, number;
  };
  // Of a rank that asks whom this one waits for, if there is one; it is to be answered.
  std::optional<Question> next_question();
  void answer(const Question& question, const Wait& wait);

  struct Result {
    std::set<int> silent;  // empty: all are there, and wait for one another
    double latest = 0;     // when, in the seconds that this rank has waited, the last of those that answered began to
  };
  // Asks, for a few seconds. waited: of this rank; goes on meanwhile.
  Result call(const std::set<int>& waits_for, WaitedSeconds& waited);

 private:
  void ask(int rank);
  std::optional<Wait> next_answer(std::set<int>& silent);

  MPI_Comm comm_ = MPI_COMM_NULL;
  // Of this rank's calls; an answer to an earlier one says nothing of now. A question may leave late: each keeps its
  // place.
  std::deque<int> numbers_;
};

}  // namespace switchyard
