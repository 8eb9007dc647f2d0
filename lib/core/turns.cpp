#include "core/turns.hpp"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace switchyard {

namespace {

constexpr std::size_t kStackBytes = std::size_t{8} << 20;  // as a program's own; only what is touched takes memory

// Ends a stack that overflows by a fault in place of a write into other memory.
class Stack {
 public:
  Stack()
      : memory_(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {
    if (memory_ == MAP_FAILED) fail("no memory for a stack of {} bytes", kStackBytes);
    if (mprotect(memory_, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE) != 0)
      fail("no page before a stack of {} bytes can be protected", kStackBytes);
  }
  ~Stack() { munmap(memory_, kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  stack_t range() const { return {.ss_sp = memory_, .ss_flags = 0, .ss_size = kStackBytes}; }

 private:
  void* memory_;
};

Turns* starting = nullptr;  // for start(), which takes no arguments

// AddressSanitizer has to be told of stacks that it did not make: before one is left for another, and in the other.
// state: of the one left; null: it ends, or it begins.
void leave_stack([[maybe_unused]] void** state, [[maybe_unused]] const void* next, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(state, next, bytes);
#endif
}
void enter_stack([[maybe_unused]] void* state, [[maybe_unused]] const void** last = nullptr,
                 [[maybe_unused]] std::size_t* bytes = nullptr) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(state, last, bytes);
#endif
}

}  // namespace

struct Turns::Strand {
  ucontext_t context{};
  std::unique_ptr<Stack> stack;  // null: the thread's own
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  std::size_t places = 0;  // that it came by
  bool begun = false, done = false;
};

Turns::Turns(int count) : count_(count), taker_(std::make_unique<Strand>()) {
  for (int i = 0; i < count && count > 1; ++i) {
    strands_.push_back(std::make_unique<Strand>());
    strands_.back()->stack = std::make_unique<Stack>();
    const stack_t range = strands_.back()->stack->range();
    strands_.back()->stack_bottom = range.ss_sp;
    strands_.back()->stack_bytes = range.ss_size;
  }
}

Turns::~Turns() = default;

void Turns::take(const std::function<void(int)>& work) {
  if (count_ == 1) return work(0);
  work_ = &work;
  failure_ = nullptr;
  places_.clear();
  for (const auto& strand : strands_) {
    strand->places = 0;
    strand->begun = strand->done = false;
  }
  const auto is_over = [](const auto& strand) { return strand->done; };
  while (!std::all_of(strands_.begin(), strands_.end(), is_over)) {
    for (running_ = 0; running_ < count_; ++running_) {
      Strand& strand = *strands_[static_cast<std::size_t>(running_)];
      if (!strand.begun && failure_) strand.done = true;
      if (!strand.done) resume(strand);
    }
  }
  running_ = 0;
  work_ = nullptr;
  if (failure_) std::rethrow_exception(failure_);
}

void Turns::resume(Strand& strand) {
  if (!strand.begun) {
    strand.begun = true;
    getcontext(&strand.context);
    strand.context.uc_stack = strand.stack->range();
    strand.context.uc_link = &taker_->context;
    makecontext(&strand.context, start, 0);
    starting = this;
  }
  go_on(*taker_, strand);
}

// Returns when somebody goes on with `from`.
void Turns::go_on(Strand& from, Strand& with) {
  void* state = nullptr;
  leave_stack(&state, with.stack_bottom, with.stack_bytes);
  swapcontext(&from.context, &with.context);
  enter_stack(state);
}

void Turns::start() {
  Turns& turns = *starting;
  enter_stack(nullptr, &turns.taker_->stack_bottom, &turns.taker_->stack_bytes);
  try {
    (*turns.work_)(turns.running_);
  } catch (const Unwind&) {
  } catch (...) {
    if (!turns.failure_) turns.failure_ = std::current_exception();
  }
  turns.strands_[static_cast<std::size_t>(turns.running_)]->done = true;
  leave_stack(nullptr, turns.taker_->stack_bottom, turns.taker_->stack_bytes);
}

void Turns::give(std::string_view place) {
  if (!work_) return;
  Strand& strand = *strands_[static_cast<std::size_t>(running_)];
  if (running_ == 0) places_.push_back(place);
  if (strand.places >= places_.size() || places_[strand.places] != place)
    fail("strand {} gives its turn away at \"{}\", where strand 0 did not: sums would not keep their order", running_,
         place);
  ++strand.places;
  go_on(strand, *taker_);
  if (failure_) throw Unwind{};
}

}  // namespace switchyard
