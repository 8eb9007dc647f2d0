#include "core/clock.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace switchyard {
namespace {

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

TEST(WaitedSeconds, AreTheClocksWhileThisProcessLooks) {
  const double start = seconds_now();
  WaitedSeconds waited;
  for (int i = 0; i < 10; ++i) {
    sleep_for(0.02);
    waited.look();
  }
  const double seconds = waited.look();
  EXPECT_GE(seconds, 0.2);
  EXPECT_LE(seconds, seconds_now() - start);
}

// As one that was stopped and continued.
TEST(WaitedSeconds, LeaveOutWhatALateLookMissed) {
  WaitedSeconds waited;
  sleep_for(1.1);
  EXPECT_LT(waited.look(), 0.1);
  sleep_for(0.1);
  EXPECT_GE(waited.look(), 0.1) << "those after it count again";
}

}  // namespace
}  // namespace switchyard
