#include "comm/roll_call.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

namespace switchyard {

namespace {

constexpr int kQuestion = 1, kAnswer = 2;  // tags

// A question is its number; an answer that number, milliseconds waited, and the ranks waited for.
constexpr std::size_t kNumber = 0, kMilliseconds = 1, kRanks = 2;

}  // namespace

RollCall::RollCall(MPI_Comm parent) { MPI_Comm_dup(parent, &comm_); }

RollCall::~RollCall() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Comm_free(&comm_);
}

std::optional<RollCall::Question> RollCall::next_question() {
  int found = 0;
  MPI_Status status;
  MPI_Iprobe(MPI_ANY_SOURCE, kQuestion, comm_, &found, &status);
  if (!found) return std::nullopt;
  Question question{status.MPI_SOURCE, 0};
  MPI_Recv(&question.number, 1, MPI_INT, question.asker, kQuestion, comm_, MPI_STATUS_IGNORE);
  return question;
}

void RollCall::answer(const Question& question, const Wait& wait) {
  std::vector<int> words{question.number, static_cast<int>(std::lround(1000 * wait.seconds))};
  words.insert(words.end(), wait.ranks.begin(), wait.ranks.end());
  MPI_Send(words.data(), static_cast<int>(words.size()), MPI_INT, question.asker, kAnswer, comm_);
}

// Does not wait: the rank that is asked may be stopped.
void RollCall::ask(int rank) {
  MPI_Request request;
  MPI_Isend(&numbers_.back(), 1, MPI_INT, rank, kQuestion, comm_, &request);
  MPI_Request_free(&request);
}

// To a question of this call; the rank that answered is no longer silent.
std::optional<RollCall::Wait> RollCall::next_answer(std::set<int>& silent) {
  for (;;) {
    int found = 0, count = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, kAnswer, comm_, &found, &status);
    if (!found) return std::nullopt;
    MPI_Get_count(&status, MPI_INT, &count);
    std::vector<int> words(static_cast<std::size_t>(count));
    MPI_Recv(words.data(), count, MPI_INT, status.MPI_SOURCE, kAnswer, comm_, MPI_STATUS_IGNORE);
    if (words[kNumber] != numbers_.back()) continue;
    silent.erase(status.MPI_SOURCE);
    return Wait{{words.begin() + kRanks, words.end()}, 1e-3 * words[kMilliseconds]};
  }
}

RollCall::Result RollCall::call(const std::set<int>& waits_for, WaitedSeconds& waited) {
  numbers_.push_back(static_cast<int>(numbers_.size()));
  int own = 0;
  MPI_Comm_rank(comm_, &own);
  std::set<int> asked{own};
  Result result;
  double now = waited.look(), end = now;
  const auto ask_all = [&](const std::set<int>& ranks) {
    for (int rank : ranks) {
      if (!asked.insert(rank).second) continue;
      ask(rank);
      result.silent.insert(rank);
      end = now + kPatience;
    }
  };
  ask_all(waits_for);
  // To the end even where all have answered: others, whose time is up a moment later, ask this rank.
  for (; now < end; now = waited.look()) {
    while (const auto question = next_question()) answer(*question, {waits_for, now});
    if (const auto answered = next_answer(result.silent)) {
      ask_all(answered->ranks);
      result.latest = std::max(result.latest, now - answered->seconds);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  return result;
}

}  // namespace switchyard
