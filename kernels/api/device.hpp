// The devices that a program can compute on. A rank uses one of them, from one thread.
#pragma once

#include <functional>
#include <string>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// Whether this program has kernels for the device at all.
bool is_built_for(Device device);
// How many this process may use: 1 for the CPU; CUDA: 0 without a driver or a GPU.
int num_devices(Device device);
// From now on the calling thread's CUDA calls concern this one.
void use_device(Device device, int index);
// As its maker calls it: "NVIDIA H100 80GB HBM3, sm_90". Of the one in use.
std::string device_name(Device device);
// Where it sits in its machine: equal texts of one machine name one device. Of the one in use.
std::string device_place(Device device);

// kHigh: where a GPU's units have room for one of two streams' blocks, for that one's. For what others wait for.
enum class Priority { kUsual, kHigh };
// Work of one stream is done in order. CPU: null, and nothing to wait for.
void* make_stream(Device device, Priority priority = Priority::kUsual);
void destroy_stream(Device device, void* stream);
// A stream that ends with its owner.
class Stream {
 public:
  Stream(Device device, Priority priority) : device_(device), stream_(make_stream(device, priority)) {}
  ~Stream() { destroy_stream(device_, stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  void* get() const { return stream_; }

 private:
  Device device_;
  void* stream_;
};
// What the one context's stream is given from now on begins when all that the other's has been given is done.
void wait_for(const Context& waiting, const Context& earlier);
// The host waits for all work given to the context's stream; fails where it failed.
void synchronize(const Context& context);

// Seconds that the device takes for all that `work` gives to the context's stream, by the device's own clock (CPU: by
// the host's), gaps in which it waits for the host among them. Waits for what was given before, and for the work
// itself.
double seconds_of(const Context& context, const std::function<void()>& work);

// Called again and again while the host waits for a GPU, with the seconds that it has waited; may throw. Null: nobody.
using WaitWatch = std::function<void(double seconds)>;
void watch_waits(Device device, WaitWatch watch);

}  // namespace switchyard::kernels
