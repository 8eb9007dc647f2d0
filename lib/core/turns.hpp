// Strands of work that take turns on one thread. Each has a stack of its own and runs until it gives its turn away,
// where it would otherwise wait: then the next one goes on, in a fixed order. So a rank has other work to do while one
// microbatch's tokens travel, and what happens in which order is the same in every run.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace switchyard {

class Turns {
 public:
  // Strands 0 ... count - 1.
  explicit Turns(int count);
  ~Turns();
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  int count() const { return count_; }

  // work(strand) of every strand, until all have returned. Where one throws the others are unwound, and its exception
  // comes out of here. One strand alone runs as any function does.
  void take(const std::function<void(int)>& work);

  // By the running strand: returns when it has its turn again. Strands must come by the same places, literals, in the
  // same order, those after strand 0 perhaps by fewer in the end: fails otherwise. Nothing happens outside of take(),
  // and where there is one strand.
  void give(std::string_view place);

 private:
  struct Strand;
  struct Unwind {};

  static void start();
  void resume(Strand& strand);
  static void go_on(Strand& from, Strand& with);

  int count_;
  int running_ = 0;
  std::vector<std::unique_ptr<Strand>> strands_;
  std::unique_ptr<Strand> taker_;         // who called take()
  std::vector<std::string_view> places_;  // that strand 0 came by
  const std::function<void(int)>* work_ = nullptr;
  std::exception_ptr failure_;
};

}  // namespace switchyard
