#include "comm/roll_call.hpp"

#include <chrono>
#include <thread>
#include <vector>

namespace switchyard {

namespace {

constexpr int kQuestion = 1, kAnswer = 2;  // tags
// A rank that waits looks for questions several times a second; more than that where cores have many ranks to serve.
constexpr auto kPatience = std::chrono::seconds(2);

}  // namespace

RollCall::RollCall(MPI_Comm parent) { MPI_Comm_dup(parent, &comm_); }

RollCall::~RollCall() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Comm_free(&comm_);
}

std::optional<int> RollCall::next_asker() {
  int found = 0;
  MPI_Status status;
  MPI_Iprobe(MPI_ANY_SOURCE, kQuestion, comm_, &found, &status);
  if (!found) return std::nullopt;
  MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kQuestion, comm_, MPI_STATUS_IGNORE);
  return status.MPI_SOURCE;
}

void RollCall::answer(int asker, const std::set<int>& waits_for) {
  const std::vector<int> ranks(waits_for.begin(), waits_for.end());
  MPI_Send(ranks.data(), static_cast<int>(ranks.size()), MPI_INT, asker, kAnswer, comm_);
}

// Does not wait: the rank that is asked may be stopped.
void RollCall::ask(int rank) {
  MPI_Request request;
  MPI_Isend(nullptr, 0, MPI_BYTE, rank, kQuestion, comm_, &request);
  MPI_Request_free(&request);
}

// Whom the rank waits for that answered now; it is no longer silent.
std::optional<std::set<int>> RollCall::next_answer(std::set<int>& silent) {
  int found = 0, count = 0;
  MPI_Status status;
  MPI_Iprobe(MPI_ANY_SOURCE, kAnswer, comm_, &found, &status);
  if (!found) return std::nullopt;
  MPI_Get_count(&status, MPI_INT, &count);
  std::vector<int> ranks(static_cast<std::size_t>(count));
  MPI_Recv(ranks.data(), count, MPI_INT, status.MPI_SOURCE, kAnswer, comm_, MPI_STATUS_IGNORE);
  silent.erase(status.MPI_SOURCE);
  return std::set<int>(ranks.begin(), ranks.end());
}

std::set<int> RollCall::missing(const std::set<int>& waits_for) {
  int own = 0;
  MPI_Comm_rank(comm_, &own);
  std::set<int> asked{own}, silent;
  auto end = std::chrono::steady_clock::now();
  const auto ask_all = [&](const std::set<int>& ranks) {
    for (int rank : ranks) {
      if (!asked.insert(rank).second) continue;
      ask(rank);
      silent.insert(rank);
      end = std::chrono::steady_clock::now() + kPatience;
    }
  };
  ask_all(waits_for);
  // To the end even where all have answered: others, whose time is up a moment later, ask this rank.
  while (std::chrono::steady_clock::now() < end) {
    while (const auto asker = next_asker()) answer(*asker, waits_for);
    if (const auto answered = next_answer(silent))
      ask_all(*answered);
    else
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return silent;
}

}  // namespace switchyard
