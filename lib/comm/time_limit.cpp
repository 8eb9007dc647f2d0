#include "comm/time_limit.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <system_error>

#include "comm/roll_call.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

constexpr std::chrono::milliseconds kBetweenLooks{50};
// Seconds that a healthy rank may come after the others: it calls the roll to the end, though all have answered.
constexpr double kLate = 2 * RollCall::kPatience;

// At once: MPI, in which another thread waits, would wait on.
[[noreturn]] void end_process(const std::string& problem) {
  fmt::print(stderr, "switchyard: {}\n", problem);
  std::fflush(nullptr);
  _exit(static_cast<int>(ExitCode::kFailure));
}

}  // namespace

TimeLimit::TimeLimit(std::string_view what, int rank, Index seconds) try
    : thread_([this, what = std::string(what), rank, seconds] {
        std::unique_lock lock(mutex_);
        for (WaitedSeconds waited; !over_changed_.wait_for(lock, kBetweenLooks, [this] { return over_; });)
          if (waited.look() >= static_cast<double>(seconds) + kLate)
            end_process(fmt::format(
                "{}: rank {} waited {} s for the other ranks. Look for the error message of one, or at its node; if "
                "one is only slow, raise parallel.timeout.",
                what, rank, seconds));
      }) {
} catch (const std::system_error& error) {
  end_process(
      fmt::format("{}: rank {}: no thread could be started ({}): raise the limits on processes and memory "
                  "(ulimit -u, ulimit -v)",
                  what, rank, error.code().message()));
}

TimeLimit::~TimeLimit() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  over_changed_.notify_one();
  thread_.join();
}

}  // namespace switchyard
