#include "core/turns.hpp"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.hpp"

namespace switchyard {

namespace {

constexpr std::size_t kStackBytes = std::size_t{8} << 20;  // as a program's own; only what is touched takes memory

// Ends a stack that overflows by a fault in place of a write into other memory.
class Stack {
 public:
  Stack()
      : memory_(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {
    if (memory_ == MAP_FAILED) fail("no memory for a stack of {} bytes", kStackBytes);
    mprotect(memory_, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE);
  }
  ~Stack() { munmap(memory_, kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  stack_t range() const { return {.ss_sp = memory_, .ss_flags = 0, .ss_size = kStackBytes}; }

 private:
  void* memory_;
};

Turns* starting = nullptr;  // for start(), which takes no arguments

}  // namespace

struct Turns::Strand {
  ucontext_t context{};
  std::unique_ptr<Stack> stack;
  std::size_t places = 0;  // that it came by
  bool begun = false, done = false;
};

Turns::Turns(int count) : count_(count), taker_(std::make_unique<Strand>()) {
  for (int i = 0; i < count && count > 1; ++i) {
    strands_.push_back(std::make_unique<Strand>());
    strands_.back()->stack = std::make_unique<Stack>();
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
  swapcontext(&taker_->context, &strand.context);
}

void Turns::start() {
  Turns& turns = *starting;
  try {
    (*turns.work_)(turns.running_);
  } catch (const Unwind&) {
  } catch (...) {
    if (!turns.failure_) turns.failure_ = std::current_exception();
  }
  turns.strands_[static_cast<std::size_t>(turns.running_)]->done = true;
}

void Turns::give(std::string_view place) {
  if (!work_) return;
  Strand& strand = *strands_[static_cast<std::size_t>(running_)];
  if (running_ == 0) places_.push_back(place);
  if (strand.places >= places_.size() || places_[strand.places] != place)
    fail("strand {} gives its turn away at \"{}\", where strand 0 did not: sums would not keep their order", running_,
         place);
  ++strand.places;
  swapcontext(&strand.context, &taker_->context);
  if (failure_) throw Unwind{};
}

}  // namespace switchyard
