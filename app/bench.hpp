// The parts of `switchyard bench`.
#pragma once

#include <vector>

#include "app/world.hpp"

namespace switchyard {

double median(std::vector<double> values);

// Rows of one expert's segment come from so many experts that share a microbatch.
Index num_segments(const Config& config);

// This program's matrix products against oneDNN's, at the model's own shapes, `repeats` times in turn. Every rank
// computes at the same time, rank 0 prints its own rates.
int bench_products(World& world, const Config& config, Index repeats);

}  // namespace switchyard
