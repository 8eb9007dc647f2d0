// Microbatches of a step that the host gives to a GPU as one launch each: forward and backward passes, metrics. Those
// of a kind of step (Router) are recorded when it comes for the second time, and the first has made all the room that
// it needs, and launched again in each step of the kind from then on. Another step is another number in device memory,
// which random numbers are keyed by, other samples at the same addresses, and what the host draws anew.
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
  // count: how many of a step's, from its first on; where there are many graphs in all, less.
  RecordedMicrobatches(const Context& context, Index num_kinds, Index count, GradientSums& gradients,
                       PackedWeights& packed_weights);

  // How many of a step's are.
  Index count() const { return std::ssize(kinds_.front().microbatches); }

  // allowed: whether this step may use what is recorded, or record.
  void begin_step(Index step, Index kind, bool allowed);
  // Whether the step at hand records, or will in the next one of its kind.
  bool prepares() const { return prepares_; }

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
  struct Kind {
    bool has_room = false;
    PackedWeights::Uses weights;
    std::vector<Recorded> microbatches;
  };
  void record(Recorded& recorded, const Pass& pass, const std::function<void(const Pass&)>& compute);
  void prepare(Recorded& recorded, Index step, const Microbatch& microbatch);

  const Context& context_;
  GradientSums& gradients_;
  PackedWeights& packed_weights_;
  std::vector<Kind> kinds_;
  Kind* kind_ = nullptr;  // of the step at hand
  bool active_ = false;   // whether that is recorded
  bool prepares_ = false;
  kernels::Array<std::uint32_t> step_;  // (1)
};

}  // namespace switchyard
