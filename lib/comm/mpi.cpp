#include "comm/mpi.hpp"

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>

#include "comm/host_staging.hpp"
#include "comm/roll_call.hpp"
#include "comm/time_limit.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

constexpr Index kLargestMessage = Index{1} << 30;  // MPI counts are int
constexpr int kTag = 1;
constexpr Index kPollsBeforeSleep = 200;
constexpr double kBetweenLooks = 0.05;  // seconds: at the roll call and at how long this rank has waited
constexpr int kAllOthers = -1;          // as the peer of a request

void check(int code, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail("{}: MPI reports \"{}\"", what, std::string_view(text, static_cast<std::size_t>(length)));
}

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `comm`.
  MpiCommunicator(MPI_Comm comm, int rank, std::vector<int> world_ranks, Index timeout_seconds,
                  std::shared_ptr<RollCall> roll_call)
      : Communicator(rank, std::move(world_ranks)),
        comm_(comm),
        timeout_(timeout_seconds),
        roll_call_(std::move(roll_call)) {}

  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) MPI_Comm_free(&comm_);
  }

  void set_timeout(Index seconds) override { timeout_ = seconds; }

  std::unique_ptr<Communicator> split(int color) override {
    constexpr std::string_view kWhat = "splitting ranks into groups";
    std::vector<int> colors(static_cast<std::size_t>(size()));
    all_gather(*this, kWhat, &color, sizeof(color), colors.data());
    std::vector<int> members;
    int part_rank = 0;
    for (int each = 0; each < size(); ++each) {
      if (colors[static_cast<std::size_t>(each)] != color) continue;
      if (each == rank()) part_rank = static_cast<int>(members.size());
      members.push_back(world_rank(each));
    }
    MPI_Comm part = MPI_COMM_NULL;
    const TimeLimit limit(kWhat, world_rank(rank()), timeout_);
    check(MPI_Comm_split(comm_, color, rank(), &part), kWhat);
    return std::make_unique<MpiCommunicator>(part, part_rank, std::move(members), timeout_, roll_call_);
  }

  void all_reduce(const Context& context, float* data, Index size) override {
    if (context.device != Device::kCpu)
      return staging_.in_host_memory(context, data, size, [&](float* copy) { all_reduce({}, copy, size); });
    Requests requests;
    for (Index done = 0; done < size; done += kLargestMessage / 4) {
      const int count = static_cast<int>(std::min(size - done, kLargestMessage / 4));
      check(MPI_Iallreduce(MPI_IN_PLACE, data + done, count, MPI_FLOAT, MPI_SUM, comm_, requests.add(kAllOthers)),
            "sum over ranks");
    }
    wait_for_all("sum over ranks", requests);
  }

  void exchange_arrays(const Context& context, std::string_view what, std::span<const Transfer> transfers,
                       const Meanwhile& meanwhile) override {
    if (context.device == Device::kCpu) return exchange_meanwhile(what, transfers, meanwhile);
    staging_.exchange(context, rank(), transfers, [&](std::span<const Transfer> in_host_memory) {
      exchange_meanwhile(what, in_host_memory, meanwhile);
    });
  }

  void exchange(std::string_view what, std::span<const Transfer> transfers) override {
    exchange_meanwhile(what, transfers, [] {});
  }

 private:
  struct Requests {
    std::vector<MPI_Request> all;
    std::vector<int> peers;  // of each

    MPI_Request* add(int peer) {
      peers.push_back(peer);
      return &all.emplace_back(MPI_REQUEST_NULL);
    }
  };

  void exchange_meanwhile(std::string_view what, std::span<const Transfer> transfers, const Meanwhile& meanwhile) {
    Requests requests;
    for (const Transfer& transfer : transfers)
      if (transfer.peer != rank()) post_receives(what, transfer, requests);
    for (const Transfer& transfer : transfers)
      if (transfer.peer != rank()) post_sends(what, transfer, requests);
    for (const Transfer& transfer : transfers) {
      if (transfer.peer != rank()) continue;
      if (transfer.send_bytes != transfer.receive_bytes)
        fail("{}: rank {} sends itself {} bytes but expects {}", what, world_rank(rank()), transfer.send_bytes,
             transfer.receive_bytes);
      if (transfer.send_bytes > 0)
        std::memcpy(transfer.receive, transfer.send, static_cast<std::size_t>(transfer.send_bytes));
    }
    meanwhile();  // where it throws the run ends, and with it what is on its way
    wait_for_all(what, requests);
  }

  int world_rank(int rank) const { return world_ranks()[static_cast<std::size_t>(rank)]; }

  // A transfer of 0 bytes still sends a message: it says that the peer has come this far.
  void post_receives(std::string_view what, const Transfer& transfer, Requests& requests) {
    auto* bytes = static_cast<std::byte*>(transfer.receive);
    for (Index done = 0; done == 0 || done < transfer.receive_bytes; done += kLargestMessage) {
      const int count = static_cast<int>(std::min(transfer.receive_bytes - done, kLargestMessage));
      check(MPI_Irecv(bytes + done, count, MPI_BYTE, transfer.peer, kTag, comm_, requests.add(transfer.peer)), what);
    }
  }

  void post_sends(std::string_view what, const Transfer& transfer, Requests& requests) {
    const auto* bytes = static_cast<const std::byte*>(transfer.send);
    for (Index done = 0; done == 0 || done < transfer.send_bytes; done += kLargestMessage) {
      const int count = static_cast<int>(std::min(transfer.send_bytes - done, kLargestMessage));
      check(MPI_Isend(bytes + done, count, MPI_BYTE, transfer.peer, kTag, comm_, requests.add(transfer.peer)), what);
    }
  }

  void wait_for_all(std::string_view what, Requests& requests) {
    WaitedSeconds waited;
    double next_look = kBetweenLooks;
    double begun = 0;  // when, in seconds waited, the time-out began to run
    for (Index polls = 0;; ++polls) {
      int done = 0;
      check(MPI_Testall(static_cast<int>(requests.all.size()), requests.all.data(), &done, MPI_STATUSES_IGNORE), what);
      if (done) return;
      if (polls < kPollsBeforeSleep) continue;
      // More ranks than cores must still make progress, so give the core away.
      std::this_thread::yield();
      double now = waited.look();
      if (now < next_look) continue;
      next_look = now + kBetweenLooks;
      while (const auto question = roll_call_->next_question())
        roll_call_->answer(*question, {waits_for(what, requests), now});
      if (now - begun < static_cast<double>(timeout_)) continue;
      const std::set<int> before = waits_for(what, requests);
      RollCall::Result found = roll_call_->call(before, waited);
      now = waited.look();
      const std::set<int> peers = waits_for(what, requests);
      if (peers.empty()) return;
      std::erase_if(found.silent, [&](int each) { return before.contains(each) && !peers.contains(each); });
      // Where all peers answer, and one has come since or began to wait itself only later, it is not time yet.
      if (std::none_of(peers.begin(), peers.end(), [&](int each) { return found.silent.contains(each); }))
        begun = std::max(begun, peers == before ? found.latest : now);
      if (now - begun >= static_cast<double>(timeout_)) fail_missing(what, peers, found.silent);
    }
  }

  // World ranks. MPI_Testall leaves every request as it is until all are done, so each is asked on its own.
  std::set<int> waits_for(std::string_view what, Requests& requests) {
    std::set<int> found;
    for (std::size_t i = 0; i < requests.all.size(); ++i) {
      int done = 0;
      check(MPI_Test(&requests.all[i], &done, MPI_STATUS_IGNORE), what);
      if (done) continue;
      if (requests.peers[i] != kAllOthers) found.insert(world_rank(requests.peers[i]));
      for (int peer = 0; peer < size() && requests.peers[i] == kAllOthers; ++peer)
        if (peer != rank()) found.insert(world_rank(peer));
    }
    return found;
  }

  [[noreturn]] void fail_missing(std::string_view what, const std::set<int>& peers, const std::set<int>& missing) {
    if (missing.empty())
      fail("{}: rank {} waited {} s for rank {}. All ranks answer, but wait for one another: raise parallel.timeout.",
           what, world_rank(rank()), timeout_, listed(peers));
    fail(
        "{}: rank {} waited {} s, and there is no answer from rank {}. Look for its error message or at its node; if "
        "it is only slow, raise parallel.timeout.",
        what, world_rank(rank()), timeout_, listed(missing));
  }

  MPI_Comm comm_;
  Index timeout_;
  std::shared_ptr<RollCall> roll_call_;
  HostStaging staging_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm parent, Index timeout_seconds) {
  constexpr std::string_view kWhat = "copying MPI's communicator";
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 0;
  MPI_Comm_rank(parent, &rank);
  MPI_Comm_size(parent, &size);
  const TimeLimit limit(kWhat, rank, timeout_seconds);
  check(MPI_Comm_dup(parent, &comm), kWhat);
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  std::vector<int> world_ranks(static_cast<std::size_t>(size));
  for (int i = 0; i < size; ++i) world_ranks[static_cast<std::size_t>(i)] = i;
  return std::make_unique<MpiCommunicator>(comm, rank, std::move(world_ranks), timeout_seconds,
                                           std::make_shared<RollCall>(parent));
}

}  // namespace switchyard
