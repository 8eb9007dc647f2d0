#pragma once

#include "app/world.hpp"
#include "core/clock.hpp"
#include "kernels/api/device.hpp"
#include "train/trainer.hpp"

namespace switchyard {

// A training step that all ranks begin together, its seconds counted until the device has done all of it. Steps that
// prepare later ones come before it, and do not count.
inline StepMetrics timed_step(World& world, const Context& context, Trainer& trainer) {
  StepMetrics metrics;
  do {
    kernels::synchronize(context);
    barrier(world.comm(), "bench");
    const double start = seconds_now();
    metrics = trainer.train_step();
    kernels::synchronize(context);
    metrics.seconds = seconds_now() - start;
  } while (metrics.prepares);
  return metrics;
}

}  // namespace switchyard
