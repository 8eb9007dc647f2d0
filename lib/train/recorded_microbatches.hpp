// Microbatches of a step that the host gives to a GPU as one launch each: forward and backward passes, metrics. They
// are recorded in the second step, when the first has made all the room that they need, and launched again in each step
// from then on. Another step is another number in device memory, which random numbers are keyed by, other samples at
// the same addresses, and what the host draws anew.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kernels/api/graph.hpp"
#include "kernels/api/memory.hpp"
#include "model/pass.hpp"

namespace switchyard {

class RecordedMicrobatches {
 public:
  // count: how many of a step's, from its first on.
  RecordedMicrobatches(const Context& context, Index count, GradientSums& gradients, PackedWeights& packed_weights);

  // allowed: whether this step may use what is recorded, or record.
  void begin_step(Index step, bool allowed);

  // Gives the step's microbatch i to the context's stream. compute: what does so where it is not recorded; by the pass
  // that it is given, and the same in every step.
  void run(const Pass& pass, Index i, const Microbatch& microbatch, const std::function<void(const Pass&)>& compute);

 private:
  struct Recorded {
    std::unique_ptr<kernels::Graph> graph;
    Recording recording;
    Microbatch microbatch;
    GradientSums::State before, after;
  };
  void record(Recorded& recorded, const Pass& pass, const std::function<void(const Pass&)>& compute);
  void prepare(Recorded& recorded, Index step, const Microbatch& microbatch);

  const Context& context_;
  GradientSums& gradients_;
  PackedWeights& packed_weights_;
  std::vector<Recorded> recorded_;
  kernels::Array<std::uint32_t> step_;  // (1)
  bool has_room_ = false, active_ = false;
};

}  // namespace switchyard
