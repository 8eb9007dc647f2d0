// Looks for an expert that starves or dominates, and says so once.
#pragma once

#include <string>
#include <vector>

#include "routing/load.hpp"

namespace switchyard {

// An expert's share: of the tokens of a window of kWindow steps, those sent to it. Of k experts chosen out of E for
// each token, k/E is an even share. It dominates with more than halfway from there to all, (1 + k/E) / 2, and starves
// with less than a tenth of it. Random routers are uneven by design from step to step, and even over many: nothing is
// said.
class RoutingWatch {
 public:
  static constexpr Index kWindow = 50;

  // top_k: experts of each token; blocks: the block of each layer of a load.
  RoutingWatch(std::string router, Index top_k, std::vector<Index> blocks);

  // Every step's load in turn. Returns the warnings that are due: one for starving and one for dominating at most, over
  // the object's life, each of the worst expert that there is.
  std::vector<std::string> step(Index step, const RoutingLoad& load);

 private:
  struct Worst {
    Index layer = 0, expert = 0;
    double share = 0;
  };
  void judge_window(const RoutingLoad& shape, std::vector<std::string>& warnings);
  std::string place(const Worst& worst) const;

  std::string router_;
  Index top_k_;
  std::vector<Index> blocks_;
  std::vector<double> tokens_;  // (layers, experts) of the window
  Index first_step_ = 0, num_steps_ = 0;
  bool said_dominates_ = false, said_starves_ = false;
};

}  // namespace switchyard
