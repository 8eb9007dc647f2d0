// libFuzzer's entry, for readers that use HDF5. HDF5 1.10 itself crashes, or never ends, on some damaged files; a
// CrashGuard turns a crash into words for the user. Such inputs are counted here and left out, and all else is a
// finding.
//
// So each input is first read by another process. Where that ends in a crash of the library the input goes no further,
// and the next one gets a new process; otherwise this process reads the input as well, for libFuzzer to see what it
// covers, or where it fails.
#include <dlfcn.h>
#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fuzz/harness.hpp"

namespace switchyard::fuzz {
namespace {

enum End : int { kRead = 0, kLibraryCrash = 101, kLibraryLoop = 102, kOwnLoop = 103 };

// Whose code a frame of a stack is. Of this program only the sanitizers' functions in the place of memcpy, free and the
// like have names to dladdr.
enum class Owner { kOwn, kLibrary, kStandIn, kOther };

Owner owner_of(std::uintptr_t address) {
  Dl_info frame, own;
  if (dladdr(reinterpret_cast<void*>(address), &frame) == 0) return Owner::kOther;
  if (std::strstr(frame.dli_fname, "libhdf5")) return Owner::kLibrary;
  dladdr(reinterpret_cast<void*>(&owner_of), &own);
  if (frame.dli_fbase != own.dli_fbase) return Owner::kOther;
  return frame.dli_sname ? Owner::kStandIn : Owner::kOwn;
}

// Innermost frame first. What lies within a stand-in, some frames at most, is the sanitizers' own.
bool is_of_library(const std::vector<std::uintptr_t>& stack) {
  constexpr std::size_t kMostWithin = 4;
  std::size_t first = 0;
  for (std::size_t i = 0; i < std::min(kMostWithin, stack.size()); ++i)
    if (owner_of(stack[i]) == Owner::kStandIn) first = i + 1;
  for (; first < stack.size(); ++first)
    if (const Owner owner = owner_of(stack[first]); owner == Owner::kOwn || owner == Owner::kLibrary)
      return owner == Owner::kLibrary;
  return false;
}

// A sanitizer's report is of the library where all its stacks are: that of the access, and those of who allocated or
// freed the memory. Their lines begin "    #0 0x7f...".
bool is_of_library(const char* report) {
  std::vector<std::vector<std::uintptr_t>> stacks;
  for (const char* line = std::strstr(report, "    #"); line; line = std::strstr(line + 1, "    #")) {
    char* end = nullptr;
    if (std::strtol(line + 5, &end, 10) == 0) stacks.emplace_back();
    if (!stacks.empty()) stacks.back().push_back(std::strtoull(end, nullptr, 16));
  }
  return !stacks.empty() &&
         std::all_of(stacks.begin(), stacks.end(), [](const auto& stack) { return is_of_library(stack); });
}

volatile std::sig_atomic_t num_library_calls = 0, num_calls_before = -1;

// Twice, a quarter of a second of processor time apart: an input takes some milliseconds.
void on_long_time(int) {
  if (num_calls_before >= 0) _exit(num_library_calls == num_calls_before ? kLibraryLoop : kOwnLoop);
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

[[noreturn]] void read_inputs(int from_parent, int to_parent) {
  dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);  // the parent tells of findings
  __asan_set_error_report_callback([](const char* report) {
    if (is_of_library(report)) _exit(kLibraryCrash);
  });
  std::signal(SIGPROF, on_long_time);
  std::size_t size = 0;
  while (transfer(read, from_parent, reinterpret_cast<char*>(&size), sizeof size)) {
    std::string bytes(size, '\0');
    transfer(read, from_parent, bytes.data(), size);
    num_calls_before = -1;
    const itimerval long_time{{0, 250000}, {0, 250000}}, never{};
    setitimer(ITIMER_PROF, &long_time, nullptr);
    tolerate_errors([&] { read_input(bytes); });
    setitimer(ITIMER_PROF, &never, nullptr);
    const char done = kRead;
    transfer(write, to_parent, &done, 1);
  }
  _exit(kRead);
}

// A process that reads inputs, and is replaced when one has ended it.
class OtherProcess {
 public:
  int read_input(std::string_view bytes) {
    if (pid_ < 0) start();
    const std::size_t size = bytes.size();
    char done = 0;
    if (transfer(write, to_, reinterpret_cast<const char*>(&size), sizeof size) &&
        transfer(write, to_, bytes.data(), size) && transfer(read, from_, &done, 1))
      return kRead;
    close(to_), close(from_);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  void start() {
    int there[2], back[2];
    require(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0, "there are pipes");
    pid_ = fork();
    require(pid_ >= 0, "there is another process");
    if (pid_ == 0) {
      close(there[1]), close(back[0]);
      read_inputs(there[0], back[1]);
    }
    close(there[0]), close(back[1]);
    to_ = there[1], from_ = back[0];
  }

  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
};

// How the library failed, and how often; told at the end.
struct Tally {
  long inputs = 0, crashes = 0, loops = 0;
  ~Tally() {
    std::fprintf(stderr, "stat::inputs_left_out: %ld of %ld (HDF5 crashed on %ld, did not end on %ld)\n",
                 crashes + loops, inputs, crashes, loops);
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
  return "symbolize=0:detect_leaks=0:handle_abort=1:allocator_may_return_null=1:max_allocation_size_mb=1024:"
         "malloc_context_size=2:quarantine_size_mb=1";
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static const bool here = std::getenv("FUZZ_HERE");  // to see a crash of the library
  if (here) return tolerate_errors([&] { switchyard::read_input(bytes); }), 0;
  static OtherProcess apart;
  ++tally.inputs;
  const int end = apart.read_input(bytes);
  tally.crashes += end == kLibraryCrash;
  tally.loops += end == kLibraryLoop;
  if (end == kLibraryCrash || end == kLibraryLoop) return -1;  // not into the corpus
  tolerate_errors([&] { switchyard::read_input(bytes); });
  if (end != kRead) std::fprintf(stderr, "the other process ended with %d, this one did not\n", end);
  require(end == kRead, "an input ends as it does in another process");
  return 0;
}
