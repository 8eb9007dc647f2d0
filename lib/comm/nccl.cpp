#include "comm/nccl.hpp"

#include "core/error.hpp"

#ifdef SWITCHYARD_HAS_NCCL
#include <cuda_runtime.h>
#include <mpi.h>
#include <nccl.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "comm/collectives.hpp"
#include "core/clock.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/memory.hpp"
#endif

namespace switchyard {

#ifndef SWITCHYARD_HAS_NCCL

bool has_nccl() { return false; }

std::string nccl_version() { return ""; }

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator>, Index) {
  fail(
      "this program was built without NCCL: set parallel.exchange = host, or build with -DSWITCHYARD_CUDA=ON and "
      "NCCL.");
}

#else

namespace {

// Kernels of two communicators on different streams each wait for other ranks: with neither room for both on a GPU nor
// an order, rank 0's may wait for rank 1's first, and rank 1's for rank 0's second. From 2.26 on NCCL keeps the order
// in which the host gives them, where asked to before its first call (user guide, NCCL_LAUNCH_ORDER_IMPLICIT).
bool keeps_launch_order() {
  static const bool keeps = [] {
    constexpr const char* kName = "NCCL_LAUNCH_ORDER_IMPLICIT";
    setenv(kName, "1", 0);
    int version = 0;
    return ncclGetVersion(&version) == ncclSuccess && version >= 22600 && std::string_view(getenv(kName)) == "1";
  }();
  return keeps;
}

// Ends communicators that others may never come to. All at once: a kernel of one may be queued on the GPU behind one of
// another that waits for ranks, and NCCL waits for it.
void abort_at_once(const std::vector<ncclComm_t>& communicators) {
  constexpr double kMostSeconds = 10;
  const auto left = std::make_shared<std::atomic<std::size_t> >(communicators.size());
  for (const ncclComm_t each : communicators)
    std::thread([each, left] {
      (void)ncclCommAbort(each);
      --*left;
    }).detach();
  const double began = seconds_now();
  while (*left > 0 && seconds_now() - began < kMostSeconds) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (*left == 0) return;
  fmt::print(stderr, "switchyard: NCCL does not give up what waits for other ranks within {} s: the job is ended\n",
             kMostSeconds);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kFailure));
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, Index timeout_seconds)
      : Communicator(host->rank(), host->world_ranks()), host_(std::move(host)), timeout_(timeout_seconds) {
    constexpr std::string_view kWhat = "meeting over NCCL";
    (void)keeps_launch_order();
    ncclUniqueId id{};
    if (rank() == 0) check(ncclGetUniqueId(&id), kWhat);
    broadcast(*host_, kWhat, &id, sizeof id, 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;  // so that a rank that does not come is a time-out and no endless wait
    try {
      begun(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config), kWhat);
    } catch (...) {
      if (comm_) abort_at_once({comm_});
      throw;
    }
    all().push_back(this);
    kernels::watch_waits(Device::kCuda, [](double seconds) {
      for (const NcclCommunicator* each : all()) each->look(seconds);
    });
  }

  // After an error the others may never come; else they may still be reading what this rank has sent.
  ~NcclCommunicator() override {
    if (comm_ && (std::uncaught_exceptions() > 0 || !finalized())) abort_all();
    std::erase(all(), this);
    if (all().empty()) kernels::watch_waits(Device::kCuda, nullptr);
    if (comm_) (void)ncclCommDestroy(comm_);
  }

  void exchange(std::string_view what, std::span<const Transfer> transfers) override {
    host_->exchange(what, transfers);
  }

  // Counts and the like come in host memory. One group, so that NCCL runs all sends and receives at once and none waits
  // for another.
  void exchange_arrays(const Context& context, std::string_view what, std::span<const Transfer> transfers,
                       const Meanwhile& meanwhile) override {
    if (context.device == Device::kCpu) return host_->exchange_arrays(context, what, transfers, meanwhile);
    const auto stream = static_cast<cudaStream_t>(context.stream);
    latest() = what;
    check(ncclGroupStart(), what);
    for (const Transfer& each : transfers) {
      if (each.peer == rank()) continue;
      if (each.send_bytes > 0)
        check_begun(ncclSend(each.send, static_cast<std::size_t>(each.send_bytes), ncclInt8, each.peer, comm_, stream),
                    what);
      if (each.receive_bytes > 0)
        check_begun(
            ncclRecv(each.receive, static_cast<std::size_t>(each.receive_bytes), ncclInt8, each.peer, comm_, stream),
            what);
    }
    begun(ncclGroupEnd(), what);
    for (const Transfer& each : transfers)
      if (each.peer == rank()) kernels::copy(context, each.receive, each.send, each.send_bytes);
    meanwhile();
  }

  bool exchanges_overlap() const override { return keeps_launch_order(); }

  std::unique_ptr<Communicator> split(int color) override {
    return std::make_unique<NcclCommunicator>(host_->split(color), timeout_);
  }

  void set_timeout(Index seconds) override {
    timeout_ = seconds;
    host_->set_timeout(seconds);
  }

  void all_reduce(const Context& context, float* data, Index size) override {
    if (context.device == Device::kCpu) return host_->all_reduce(context, data, size);
    latest() = "sum over ranks";
    begun(ncclAllReduce(data, data, static_cast<std::size_t>(size), ncclFloat, ncclSum, comm_,
                        static_cast<cudaStream_t>(context.stream)),
          "sum over ranks");
  }

 private:
  // This process's communicators, the world first: the host waits for all that was given to the GPU, whoever gave it.
  static std::vector<NcclCommunicator*>& all() {
    static std::vector<NcclCommunicator*> communicators;
    return communicators;
  }
  static void abort_all() {
    std::vector<ncclComm_t> communicators;
    for (NcclCommunicator* each : all())
      if (each->comm_) communicators.push_back(std::exchange(each->comm_, nullptr));
    abort_at_once(communicators);
  }
  // What one of them gave to the GPU last.
  static std::string& latest() {
    static std::string what;
    return what;
  }

  // While the host waits for the GPU, where NCCL's part waits for other ranks. Whoever fails here unwinds to the
  // destructors, which abort what the GPU still waits for.
  void look(double seconds) const {
    if (!comm_) return;  // given up
    ncclResult_t result = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &result), latest());
    check_begun(result, latest());
    if (seconds < static_cast<double>(timeout_)) return;
    const std::string what = latest() + ", or earlier work of the GPU";
    barrier(*all().front()->host_, what);  // names the ranks that do not come
    fail("{}: rank {} waited {} s for its GPU, though all ranks answer: if it is only slow, raise parallel.timeout.",
         what, world_ranks()[static_cast<std::size_t>(rank())], timeout_);
  }

  void check(ncclResult_t result, std::string_view what) const {
    if (result != ncclSuccess)
      fail("{}: on rank {} NCCL reports \"{}\" ({}). NCCL_DEBUG=INFO in the environment makes it say more.", what,
           world_ranks()[static_cast<std::size_t>(rank())], ncclGetErrorString(result), ncclGetLastError(comm_));
  }
  void check_begun(ncclResult_t result, std::string_view what) const {
    if (result != ncclInProgress) check(result, what);
  }

  // Waits until NCCL has given the work to the stream, which may need all ranks, but not until it is done.
  void begun(ncclResult_t result, std::string_view what) {
    WaitedSeconds waited;
    while (result == ncclInProgress) {
      if (waited.look() >= static_cast<double>(timeout_)) {
        barrier(*host_, what);  // names the ranks that do not come
        fail("{}: rank {} waited {} s for NCCL, though all ranks answer. NCCL_DEBUG=INFO makes it say why.", what,
             world_ranks()[static_cast<std::size_t>(rank())], timeout_);
      }
      std::this_thread::yield();
      check(ncclCommGetAsyncError(comm_, &result), what);
    }
    check(result, what);
  }

  bool finalized() {
    ncclResult_t result = ncclCommFinalize(comm_);
    WaitedSeconds waited;
    while (result == ncclInProgress && waited.look() < static_cast<double>(timeout_)) {
      std::this_thread::yield();
      if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess) return false;
    }
    return result == ncclSuccess;
  }

  std::unique_ptr<Communicator> host_;
  Index timeout_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

bool has_nccl() { return true; }

std::string nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "NCCL of unknown version";
  return fmt::format("NCCL {}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host, Index timeout_seconds) {
  return std::make_unique<NcclCommunicator>(std::move(host), timeout_seconds);
}

#endif

}  // namespace switchyard
