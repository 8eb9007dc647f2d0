// What a run measures as rows of its results.
#pragma once

#include "io/results.hpp"
#include "train/trainer.hpp"

namespace switchyard {

// batch: samples of a step, over all ranks.
io::StepRow step_row(const StepMetrics& metrics, Index batch);
io::RoutingRow routing_row(Index step, const RoutingLoad& load);
io::EvaluationRow evaluation_row(Index step, double epoch, const Measures& measures);

}  // namespace switchyard
