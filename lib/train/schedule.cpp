#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.hpp"

namespace switchyard {

double learning_rate(const ScheduleOptions& options, Index step) {
  if (step < options.warmup_steps)
    return options.learning_rate * static_cast<double>(step + 1) / static_cast<double>(options.warmup_steps);
  if (options.kind == "constant") return options.learning_rate;
  if (options.kind != "cosine") fail_usage("train.schedule: \"{}\" is not one of constant, cosine", options.kind);
  const Index steps = std::max<Index>(options.total_steps - options.warmup_steps, 1);
  const double done = std::min(1.0, static_cast<double>(step - options.warmup_steps) / static_cast<double>(steps));
  return options.learning_rate / 2 * (1 + std::cos(std::numbers::pi * done));
}

}  // namespace switchyard
