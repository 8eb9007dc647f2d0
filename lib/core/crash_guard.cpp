#include "core/crash_guard.hpp"

#include <unistd.h>

#include <csignal>
#include <vector>

#include "core/error.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SWITCHYARD_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SWITCHYARD_SANITIZED
#endif

namespace switchyard {

namespace {

#ifdef SWITCHYARD_SANITIZED
constexpr bool kCatches = false;
#else
constexpr bool kCatches = true;
#endif

constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};  // the last one is the C library's
constexpr std::size_t kNumCrashes = sizeof(kCrashes) / sizeof(kCrashes[0]);

std::vector<const std::string*> guards;         // the last one is at work
const std::string* volatile at_work = nullptr;  // for the handler
struct sigaction before[kNumCrashes];
alignas(16) char stack[64 * 1024];  // HDF5 may have used up the usual one

void on_crash(int) {
  const std::string* const words = at_work;
  if (words) (void)!write(STDERR_FILENO, words->data(), words->size());
  _exit(static_cast<int>(ExitCode::kFailure));
}

void catch_crashes() {
  const stack_t other{stack, 0, sizeof(stack)};
  sigaltstack(&other, nullptr);
  struct sigaction action {};
  action.sa_handler = on_crash;
  action.sa_flags = SA_ONSTACK;
  for (std::size_t i = 0; i < kNumCrashes; ++i) sigaction(kCrashes[i], &action, &before[i]);
}

void leave_crashes() {
  for (std::size_t i = 0; i < kNumCrashes; ++i) sigaction(kCrashes[i], &before[i], nullptr);
}

}  // namespace

CrashGuard::CrashGuard(const std::string& path)
    : words_(std::make_unique<std::string>(
          fmt::format("switchyard: {}: is damaged: reading it ended in a crash of the HDF5 library; move it away, or "
                      "name another file\n",
                      path))) {
  if (kCatches && guards.empty()) catch_crashes();
  guards.push_back(words_.get());
  at_work = guards.back();
}

CrashGuard::~CrashGuard() {
  if (!words_) return;
  std::erase(guards, words_.get());
  at_work = guards.empty() ? nullptr : guards.back();
  if (kCatches && guards.empty()) leave_crashes();
}

}  // namespace switchyard
