#pragma once

#include <string>

#include "core/types.hpp"

namespace switchyard {

struct ScheduleOptions {
  std::string kind;          // constant | cosine
  double learning_rate = 0;  // the highest
  Index warmup_steps = 0;    // linear: step s of the warm-up (from 0) takes (s + 1) / warmup_steps of it
  Index total_steps = 0;     // where the cosine ends
};

// The learning rate of step `step`, counted from 0. Cosine (Loshchilov & Hutter, 1608.03983), without restarts:
// lr / 2 (1 + cos(pi t)), t = the part of the steps after the warm-up that is done.
double learning_rate(const ScheduleOptions& options, Index step);

}  // namespace switchyard
