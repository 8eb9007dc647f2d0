#pragma once

#include <chrono>

namespace switchyard {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of a step by what this rank was doing.
struct PhaseSeconds {
  double exchange = 0;  // tokens and their gradients on their way to experts and back
  double reduce = 0;    // gradients over ranks
  double wait = 0;      // for other ranks, before either
};

// Adds the time of its own life to `seconds`.
class ScopedSeconds {
 public:
  explicit ScopedSeconds(double& seconds) : seconds_(seconds), start_(seconds_now()) {}
  ~ScopedSeconds() { pause(); }
  ScopedSeconds(const ScopedSeconds&) = delete;
  ScopedSeconds& operator=(const ScopedSeconds&) = delete;

  // What lies between does not count.
  void pause() {
    if (counts_) seconds_ += seconds_now() - start_;
    counts_ = false;
  }
  void go_on() {
    start_ = seconds_now();
    counts_ = true;
  }

 private:
  double& seconds_;
  double start_;
  bool counts_ = true;
};

}  // namespace switchyard
