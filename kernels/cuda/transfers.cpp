// Copies between host and GPU. Where host memory is not page-locked, CUDA may let each copy wait for the stream; so
// they go by way of memory that is.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr Index kMostStaged = Index{1} << 20;  // of what the host reads with one wait, in bytes
constexpr Index kAlignment = 64;

// Page-locked memory on the way to the GPU. One half fills while the GPU may still read the other.
class UploadRoom {
 public:
  UploadRoom() {
    for (cudaEvent_t& each : read_)
      check(cudaEventCreateWithFlags(&each, cudaEventDisableTiming), "making an event of the GPU");
  }
  ~UploadRoom() {
    for (const cudaEvent_t each : read_) (void)cudaEventDestroy(each);
  }
  UploadRoom(const UploadRoom&) = delete;
  UploadRoom& operator=(const UploadRoom&) = delete;

  void copy(const Context& context, void* to, const void* from, Index bytes) {
    for (Index done = 0; done < bytes;) {
      if (used_ == kHalf) change_halves(context);
      const Index piece = std::min(bytes - done, kHalf - used_);
      std::byte* const staged = memory_.data() + half_ * kHalf + used_;
      std::memcpy(staged, static_cast<const std::byte*>(from) + done, static_cast<std::size_t>(piece));
      copy_bytes(context, static_cast<std::byte*>(to) + done, staged, piece, cudaMemcpyHostToDevice);
      used_ += round_up(piece, kAlignment);
      done += piece;
    }
  }

 private:
  static constexpr Index kHalf = Index{8} << 20;
  static_assert(kHalf % kAlignment == 0);

  void change_halves(const Context& context) {
    check(cudaEventRecord(read_[static_cast<std::size_t>(half_)], stream_of(context)), "marking a place in a stream");
    half_ = 1 - half_;
    used_ = 0;
    wait("waiting for the GPU to read", [&] { return cudaEventQuery(read_[static_cast<std::size_t>(half_)]); });
  }

  HostArray<std::byte> memory_{Device::kCuda, 2 * kHalf};
  std::array<cudaEvent_t, 2> read_{};  // of each half: when the GPU has read it
  int half_ = 0;                       // which fills
  Index used_ = 0;                     // of that
};

std::map<void*, UploadRoom>& uploads() {
  static std::map<void*, UploadRoom> by_stream;
  return by_stream;
}

// Page-locked memory on the way from the GPU, for one wait of the host.
class DownloadRoom {
 public:
  DownloadRoom() { check(cudaEventCreateWithFlags(&written_, cudaEventDisableTiming), "making an event of the GPU"); }
  ~DownloadRoom() { (void)cudaEventDestroy(written_); }
  DownloadRoom(const DownloadRoom&) = delete;
  DownloadRoom& operator=(const DownloadRoom&) = delete;

  std::byte* data() { return memory_.data(); }
  // Until all that the stream has been given is done; it may be given more meanwhile.
  void wait_for_stream(const Context& context) {
    check(cudaEventRecord(written_, stream_of(context)), "marking a place in a stream");
    if (context.turns) context.turns->give("wait for the GPU");
    wait("waiting for the GPU", [&] { return cudaEventQuery(written_); });
  }

 private:
  HostArray<std::byte> memory_{Device::kCuda, kMostStaged};
  cudaEvent_t written_ = nullptr;
};

// Those that nobody waits for.
std::vector<std::unique_ptr<DownloadRoom>>& free_downloads() {
  static std::vector<std::unique_ptr<DownloadRoom>> rooms;
  return rooms;
}

std::unique_ptr<DownloadRoom> take_download() {
  if (free_downloads().empty()) return std::make_unique<DownloadRoom>();
  std::unique_ptr<DownloadRoom> room = std::move(free_downloads().back());
  free_downloads().pop_back();
  return room;
}

// Calls visit(copy, place) with a place in `room` for each copy's bytes.
template <typename Visit>
void for_each_staged(std::span<const HostCopy> copies, std::byte* room, const Visit& visit) {
  for (const HostCopy& each : copies) {
    if (each.bytes > 0) visit(each, room);
    room += round_up(each.bytes, kAlignment);
  }
}

}  // namespace

void release_staging(void* stream) { uploads().erase(stream); }

void copy_to_device(const Context& context, void* to, const void* from, Index bytes) {
  if (bytes == 0 || to == from) return;
  if (is_recording()) return copy_bytes(context, to, keep_for_graph(to, from, bytes), bytes, cudaMemcpyHostToDevice);
  uploads()[context.stream].copy(context, to, from, bytes);
}

void copy_to_host(const Context& context, void* to, const void* from, Index bytes) {
  const HostCopy copy{to, from, bytes};
  cuda::copy_to_host(context, std::span(&copy, 1));
}

void copy_to_host(const Context& context, std::span<const HostCopy> copies) {
  Index bytes = 0;
  for (const HostCopy& each : copies) bytes += round_up(each.bytes, kAlignment);
  if (bytes == 0) return;
  if (bytes > kMostStaged) {
    synchronize(context);  // so that no copy waits
    for (const HostCopy& each : copies) copy_bytes(context, each.to, each.from, each.bytes, cudaMemcpyDeviceToHost);
    return synchronize(context);
  }
  std::unique_ptr<DownloadRoom> room = take_download();
  for_each_staged(copies, room->data(), [&](const HostCopy& copy, std::byte* staged) {
    copy_bytes(context, staged, copy.from, copy.bytes, cudaMemcpyDeviceToHost);
  });
  room->wait_for_stream(context);
  for_each_staged(copies, room->data(), [](const HostCopy& copy, const std::byte* staged) {
    std::memcpy(copy.to, staged, static_cast<std::size_t>(copy.bytes));
  });
  free_downloads().push_back(std::move(room));
}

}  // namespace switchyard::kernels::cuda
