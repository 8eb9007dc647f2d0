// libFuzzer's entry, for readers that use HDF5. HDF5 1.10 itself crashes, or never ends, on some damaged files; a
// CrashGuard turns a crash into words for the user. Such inputs are counted here and left out, and all else is a
// finding.
//
// So another process reads the inputs, and hands over what they covered. Where one ends it, the next input gets a new
// process. An input that ends it by anything but a crash of the library is read by this process as well, for libFuzzer
// to keep and to report.
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <hdf5.h>
#include <sanitizer/asan_interface.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fuzz/harness.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace switchyard::fuzz {
namespace {

enum End : int { kRead = 0, kFinding = 100, kLibraryCrash = 101, kLibraryLoop = 102 };

// Whose code a frame of a stack is. Of this program only the sanitizers' functions in the place of memcpy, free and the
// like have names to dladdr.
enum class Owner { kOwn, kLibrary, kStandIn, kOther };

Owner owner_of(void* address) {
  Dl_info frame, own;
  if (dladdr(address, &frame) == 0) return Owner::kOther;
  if (std::strstr(frame.dli_fname, "libhdf5")) return Owner::kLibrary;
  dladdr(reinterpret_cast<void*>(&LLVMFuzzerTestOneInput), &own);
  if (frame.dli_fbase != own.dli_fbase) return Owner::kOther;
  return frame.dli_sname ? Owner::kStandIn : Owner::kOwn;
}

// Of a stack, innermost frame first: who comes first of our code and the library's, or kOther. What lies within a
// stand-in, some frames at most, is the sanitizers' own.
Owner owner_of(std::span<void* const> stack) {
  constexpr std::size_t kMostWithin = 12;
  std::size_t first = 0;
  for (std::size_t i = 0; i < std::min(kMostWithin, stack.size()); ++i)
    if (owner_of(stack[i]) == Owner::kStandIn) first = i + 1;
  for (; first < stack.size(); ++first)
    if (const Owner owner = owner_of(stack[first]); owner == Owner::kOwn || owner == Owner::kLibrary) return owner;
  return Owner::kOther;
}

// "0x60e0 is located 2009 bytes to the right of 155-byte region": the memory next to a wild address says nothing.
bool is_far_from_memory(const char* report) {
  constexpr long kFar = 64;
  constexpr std::string_view kBefore = " is located ";
  const char* const found = std::strstr(report, kBefore.data());
  if (!found) return true;
  char* end = nullptr;
  const long distance = std::strtol(found + kBefore.size(), &end, 10);
  return distance > kFar && !std::string_view(end).starts_with(" bytes inside");
}

// Stacks of a sanitizer's report: first that of the access, then perhaps those of who allocated and freed the memory.
// It is of the library where that made the access, and the memory was not ours. Lines of a stack: "    #0 0x7f...".
bool is_of_library(const char* report) {
  std::vector<std::vector<void*>> stacks;
  for (const char* line = std::strstr(report, "    #"); line; line = std::strstr(line + 1, "    #")) {
    char* end = nullptr;
    if (std::strtol(line + 5, &end, 10) == 0) stacks.emplace_back();
    if (!stacks.empty()) stacks.back().push_back(reinterpret_cast<void*>(std::strtoull(end, nullptr, 16)));
  }
  const auto is_ours = [](const auto& stack) { return owner_of(stack) == Owner::kOwn; };
  return !stacks.empty() && owner_of(stacks[0]) == Owner::kLibrary &&
         (is_far_from_memory(report) || std::none_of(stacks.begin(), stacks.end(), is_ours));
}

volatile std::sig_atomic_t num_library_calls = 0, num_calls_before = -1;

// Each half second of processor time: an input takes some milliseconds. What else takes long, in our code perhaps, is
// libFuzzer's to find. The stack's innermost frames are those of this signal: ours, then the C library's.
void on_long_time(int) {
  static void* frames[64];  // a signal may come while memory is allocated
  const std::span stack(frames, static_cast<std::size_t>(backtrace(frames, 64)));
  std::size_t interrupted = 0;
  while (interrupted < stack.size() && owner_of(stack[interrupted]) != Owner::kOther) ++interrupted;
  const bool in_library = owner_of(stack.subspan(std::min(interrupted + 1, stack.size()))) == Owner::kLibrary;
  if (in_library && num_library_calls == num_calls_before) _exit(kLibraryLoop);
  num_calls_before = num_library_calls;
}

// The whole of `size` bytes, through a pipe, whatever libFuzzer's clock interrupts; false at the pipe's end.
template <typename Transfer, typename Byte>
bool transfer(const Transfer& call, int fd, Byte* bytes, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = call(fd, bytes + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

// libFuzzer's counters of what was covered, as the linker puts them together.
extern "C" char __start___sancov_cntrs[], __stop___sancov_cntrs[];
const std::size_t kNumCounters = static_cast<std::size_t>(__stop___sancov_cntrs - __start___sancov_cntrs);

[[noreturn]] void read_inputs(int from_parent, int to_parent) {
  dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);  // the parent tells of findings
  __asan_set_error_report_callback([](const char* report) { _exit(is_of_library(report) ? kLibraryCrash : kFinding); });
  // What ends without a report, perhaps since the library has overwritten what the sanitizer keeps of the memory.
  __sanitizer_set_death_callback([] {
    std::vector<void*> stack(64);
    stack.resize(static_cast<std::size_t>(backtrace(stack.data(), 64)));
    _exit(owner_of(stack) == Owner::kLibrary ? kLibraryCrash : kFinding);
  });
  void* first_use_allocates[1];
  backtrace(first_use_allocates, 1);
  std::signal(SIGPROF, on_long_time);
  std::size_t size = 0;
  while (transfer(read, from_parent, reinterpret_cast<char*>(&size), sizeof size)) {
    std::string bytes(size, '\0');
    transfer(read, from_parent, bytes.data(), size);
    num_calls_before = -1;
    const itimerval long_time{{0, 500000}, {0, 500000}}, never{};
    setitimer(ITIMER_PROF, &long_time, nullptr);
    std::memset(__start___sancov_cntrs, 0, kNumCounters);
    tolerate_errors([&] { read_input(bytes); });
    setitimer(ITIMER_PROF, &never, nullptr);
    transfer(write, to_parent, __start___sancov_cntrs, kNumCounters);
  }
  _exit(kRead);
}

// A process that reads inputs, and is replaced when one has ended it, or many have made it grow.
class OtherProcess {
 public:
  int read_input(std::string_view bytes) {
    constexpr int kMostInputs = 1000;
    if (pid_ >= 0 && num_inputs_ == kMostInputs) end();
    if (pid_ < 0) start();
    ++num_inputs_;
    const std::size_t size = bytes.size();
    if (transfer(write, to_, reinterpret_cast<const char*>(&size), sizeof size) &&
        transfer(write, to_, bytes.data(), size) && transfer(read, from_, __start___sancov_cntrs, kNumCounters))
      return kRead;
    return end();
  }

 private:
  int end() {
    close(to_), close(from_);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : kFinding;
  }

  void start() {
    int there[2], back[2];
    require(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0, "there are pipes");
    pid_ = fork();
    require(pid_ >= 0, "there is another process");
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);  // or it would go on where libFuzzer ends over an input that takes too long
      close(there[1]), close(back[0]);
      read_inputs(there[0], back[1]);
    }
    close(there[0]), close(back[1]);
    num_inputs_ = 0;
    to_ = there[1], from_ = back[0];
  }

  pid_t pid_ = -1;
  int to_ = -1, from_ = -1, num_inputs_ = 0;
};

// How the library failed, and how often; told at the end. Late: an input that a new process reads without fault, when
// another has perhaps left the library's memory in disorder.
struct Tally {
  long inputs = 0, crashes = 0, loops = 0, late = 0;
  ~Tally() {
    std::fprintf(stderr,
                 "stat::inputs_left_out: %ld of %ld (HDF5 crashed on %ld, did not end on %ld, failed late %ld times)\n",
                 crashes + loops, inputs, crashes, loops, late);
  }
} tally;

}  // namespace
}  // namespace switchyard::fuzz

// Every public function of the library begins with this.
extern "C" int H5CX_push() {
  static const auto next = reinterpret_cast<int (*)()>(dlsym(RTLD_NEXT, "H5CX_push"));
  switchyard::fuzz::num_library_calls = switchyard::fuzz::num_library_calls + 1;
  return next();
}

// Checksums of the library's own metadata: the one that the file has, and the one that it should have. Here any will
// do. (Blocks of fractal heaps, for many attributes of an object, have others.)
extern "C" int H5F_get_checksums(const std::uint8_t*, std::size_t, std::uint32_t* stored, std::uint32_t* computed) {
  if (stored) *stored = 0;
  if (computed) *computed = 0;
  return 0;
}

extern "C" const char* __asan_default_options() {
  return "symbolize=0:detect_leaks=0:handle_abort=1:allocator_may_return_null=1:max_allocation_size_mb=256:"
         "malloc_context_size=2:quarantine_size_mb=4";
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  H5set_free_list_limits(0, 0, 0, 0, 0, 0);  // or the sanitizer would not see what is used after it was freed
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static const bool here = std::getenv("FUZZ_HERE");  // to see a crash of the library
  if (here) return tolerate_errors([&] { switchyard::read_input(bytes); }), 0;
  static OtherProcess apart;
  ++tally.inputs;
  int end = apart.read_input(bytes);
  if (end == kFinding) {
    end = apart.read_input(bytes);
    tally.late += end == kRead;
  }
  tally.crashes += end == kLibraryCrash;
  tally.loops += end == kLibraryLoop;
  if (end == kLibraryCrash || end == kLibraryLoop) return -1;  // not into the corpus
  if (end == kRead) return 0;
  tolerate_errors([&] { switchyard::read_input(bytes); });
  require(false, "an input ends as it does in another process");
  return 0;
}
