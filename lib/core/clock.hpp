#pragma once

#include <chrono>

namespace switchyard {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// How long this process has waited, counted from one look to the next. It looks many times a second. A look that comes
// more than a second after the one before counts as one in time: the process was stopped meanwhile (SIGSTOP, a job that
// its scheduler suspends), and what it waits for may have been, too.
class WaitedSeconds {
 public:
  double look() {
    constexpr double kLate = 1, kInTime = 0.05;
    const double now = seconds_now(), since = now - looked_;
    looked_ = now;
    return seconds_ += since > kLate ? kInTime : since;
  }

 private:
  double looked_ = seconds_now(), seconds_ = 0;
};

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
