// What train, eval and bench set up alike: ranks, threads, data and model from a configuration.
#pragma once

#include <memory>

#include "app/world.hpp"
#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "core/context.hpp"
#include "data/dataset.hpp"

namespace switchyard {

DataOptions data_options(const Config& config);
// Known from data.kind alone, or else from the files.
ImageShape shape_of_data(const Config& config);
std::string describe_model(const Config& config);
// Of what the bits of a result on this device may depend on.
std::string library_versions(Device device = Device::kCpu);

// The device that a rank computes on, with its stream. Collective.
class RankDevice {
 public:
  RankDevice(const Config& config, World& world);
  ~RankDevice();
  RankDevice(const RankDevice&) = delete;
  RankDevice& operator=(const RankDevice&) = delete;

  Device device() const { return device_; }
  void* stream() const { return stream_; }
  // The world's ranks, able to exchange this device's arrays.
  std::unique_ptr<Communicator> communicator(const Config& config, World& world) const;

 private:
  Device device_;
  void* stream_ = nullptr;
  bool shared_ = false;  // with another rank
};

// Threads, the device, the kernels' context, and the mesh. Collective.
struct Session {
  Session(const Config& config, World& world);

  std::unique_ptr<ThreadPool> threads;
  RankDevice device;
  Context context;
  Mesh mesh;
};

}  // namespace switchyard
