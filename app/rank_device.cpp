#include <mpi.h>
#include <unistd.h>

#include <set>

#include "app/session.hpp"
#include "comm/nccl.hpp"
#include "comm/time_limit.hpp"
#include "core/error.hpp"
#include "kernels/api/device.hpp"

namespace switchyard {

namespace {

// This rank's place among those of its node.
int rank_in_node(int world_rank, Index timeout_seconds) {
  const TimeLimit limit("splitting ranks by node", world_rank, timeout_seconds);
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  int rank = 0;
  MPI_Comm_rank(node, &rank);
  MPI_Comm_free(&node);
  return rank;
}

int gpus_of_this_rank() {
  if (!kernels::is_built_for(Device::kCuda))
    fail_usage(
        "compute.device = cuda: this program was built without CUDA: use compute.device = cpu, or build it with cmake "
        "--preset cuda.");
  const int gpus = kernels::num_devices(Device::kCuda);
  if (gpus == 0)
    fail_usage(
        "compute.device = cuda: no GPU is to be seen: nvidia-smi tells whether the node has one, CUDA_VISIBLE_DEVICES "
        "and SLURM's --gpus whether this rank may use it. Or use compute.device = cpu.");
  return gpus;
}

}  // namespace

RankDevice::RankDevice(const Config& config, World& world)
    : device_(config.compute.device == "cuda" ? Device::kCuda : Device::kCpu) {
  if (device_ == Device::kCpu) return;
  const int gpus = world.together([&] { return gpus_of_this_rank(); });
  // A rank that sees one GPU only has been given it; else ranks of a node take them in turn.
  const std::string mine = world.together([&] {
    kernels::use_device(device_, rank_in_node(world.rank(), config.parallel.timeout) % gpus);
    stream_ = kernels::make_stream(device_);
    return kernels::device_place(device_);
  });
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  std::set<std::string> places;
  for (const std::string& place : gather_texts(world.comm(), "GPUs of ranks", std::string(host) + " " + mine))
    shared_ = !places.insert(place).second || shared_;
  broadcast(world.comm(), "GPUs of ranks", &shared_, sizeof shared_, 0);
}

RankDevice::~RankDevice() {
  if (stream_) kernels::destroy_stream(device_, stream_);
}

std::unique_ptr<Communicator> RankDevice::communicator(const Config& config, World& world) const {
  auto host = world.comm().split(0);
  const std::string& way = config.parallel.exchange;
  if (device_ == Device::kCpu || way == "host" || (world.size() == 1 && way == "auto")) return host;
  if (way == "nccl" && !has_nccl())
    fail_usage(
        "parallel.exchange = nccl: this program was built without NCCL: set parallel.exchange = host, or build with "
        "-DSWITCHYARD_CUDA=ON where CMake finds nccl.h and libnccl.");
  if (way == "nccl" && shared_)
    fail_usage(
        "parallel.exchange = nccl: ranks share a GPU, which NCCL does not allow: "
        "start fewer ranks, or set parallel.exchange = host.");
  if (way == "nccl" || (has_nccl() && !shared_)) {
    auto nccl = make_nccl_communicator(std::move(host), config.parallel.timeout);
    if (config.parallel.overlap == "on" && world.size() > 1 && !nccl->exchanges_overlap())
      fail_usage(
          "parallel.overlap = on: {} does not launch what travels in the order in which it is told to, so ranks could "
          "wait for one another for ever: take NCCL 2.26 or later, without NCCL_LAUNCH_ORDER_IMPLICIT=0 in the "
          "environment, or set parallel.overlap = off.",
          nccl_version());
    return nccl;
  }
  if (world.speaks())
    fmt::print(stderr, "switchyard: warning: {}: arrays go from GPU to GPU by way of host memory, which is slow\n",
               shared_ ? "ranks share a GPU" : "this program was built without NCCL");
  return host;
}

}  // namespace switchyard
