// A stack of device memory for what lives within one microbatch. It grows while the first steps find out how much they
// need; after that nothing is allocated.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/api/memory.hpp"

namespace switchyard::kernels {

class Arena {
 public:
  explicit Arena(Device device) : device_(device) {}

  // 64-byte aligned, not initialised; valid until an enclosing ArenaScope ends.
  template <typename T>
  T* take(Index count) {
    return reinterpret_cast<T*>(take_bytes(bytes_of<T>(count)));
  }

  // How many times memory was asked of the device so far.
  Index num_allocations() const { return static_cast<Index>(chunks_.size()); }
  // The most that was taken at a time since the last restart_most(), in bytes.
  Index most_bytes() const { return most_; }
  void restart_most() { most_ = next_.taken; }

 private:
  friend class ArenaScope;
  struct Position {
    std::size_t chunk = 0;
    Index used = 0;
    Index taken = 0;  // in all chunks
  };
  static constexpr Index kSmallestChunk = Index{64} << 20;  // bytes

  std::byte* take_bytes(Index bytes) {
    bytes = round_up(std::max<Index>(bytes, 1), 64);
    while (next_.chunk < chunks_.size() && next_.used + bytes > chunks_[next_.chunk].size())
      next_ = {next_.chunk + 1, 0, next_.taken};
    if (next_.chunk == chunks_.size()) chunks_.emplace_back(device_, std::max(bytes, kSmallestChunk));
    std::byte* taken = chunks_[next_.chunk].data() + next_.used;
    next_.used += bytes;
    next_.taken += bytes;
    most_ = std::max(most_, next_.taken);
    return taken;
  }

  Device device_;
  std::vector<Array<std::byte>> chunks_;
  Position next_;
  Index most_ = 0;
};

// What was taken since it began goes back when it ends.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), start_(arena.next_) {}
  ~ArenaScope() { arena_.next_ = start_; }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Position start_;
};

}  // namespace switchyard::kernels
