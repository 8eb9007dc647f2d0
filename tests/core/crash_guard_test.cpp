// A crash while a file is read ends the program with words about the file; any other crash is none of the guard's.
#include "core/crash_guard.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <utility>

namespace switchyard {
namespace {

using testing::ExitedWithCode;
using testing::KilledBySignal;

// More than the stack has room for.
int recurse(int depth) {
  volatile char room[4096] = {};
  room[depth % 4096] = 1;
  return depth < 0 ? 0 : recurse(depth + 1) + room[0];
}

class CrashGuardDeathTest : public testing::Test {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the sanitizer tells more";
#endif
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
  }
};

TEST_F(CrashGuardDeathTest, NamesTheFile) {
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT})
    EXPECT_EXIT(
        {
          const CrashGuard guard("runs/a/results.h5");
          std::raise(signal);
        },
        ExitedWithCode(1), "^switchyard: runs/a/results.h5: is damaged: .*crash of the HDF5 library; move it away");
}

TEST_F(CrashGuardDeathTest, NamesTheFileWhereTheStackIsUsedUp) {
  EXPECT_EXIT(
      {
        const CrashGuard guard("a.h5");
        std::exit(recurse(0));
      },
      ExitedWithCode(1), "a.h5: is damaged");
}

TEST_F(CrashGuardDeathTest, NamesTheOneThatWasOpenedLast) {
  EXPECT_EXIT(
      {
        const CrashGuard first("a.h5");
        const CrashGuard second("b.h5");
        std::raise(SIGSEGV);
      },
      ExitedWithCode(1), "b.h5: is damaged");
  EXPECT_EXIT(
      {
        CrashGuard first("a.h5");
        const CrashGuard moved(std::move(first));
        { const CrashGuard second("b.h5"); }
        std::raise(SIGSEGV);
      },
      ExitedWithCode(1), "a.h5: is damaged");
}

TEST_F(CrashGuardDeathTest, IsSilentOfWhatItDidNotSee) {
  EXPECT_EXIT(
      {
        { const CrashGuard guard("a.h5"); }
        std::raise(SIGSEGV);
      },
      KilledBySignal(SIGSEGV), "^$");
}

}  // namespace
}  // namespace switchyard
