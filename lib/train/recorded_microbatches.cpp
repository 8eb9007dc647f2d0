#include "train/recorded_microbatches.hpp"

#include "core/error.hpp"

namespace switchyard {

RecordedMicrobatches::RecordedMicrobatches(const Context& context, Index count, GradientSums& gradients,
                                           PackedWeights& packed_weights)
    : context_(context),
      gradients_(gradients),
      packed_weights_(packed_weights),
      recorded_(static_cast<std::size_t>(count)),
      step_(context.device, 1) {}

// Whether weights are out of date in the first microbatch depends on evaluations before: so they are packed here.
void RecordedMicrobatches::begin_step(Index step, bool allowed) {
  active_ = allowed && has_room_;
  has_room_ = true;
  if (!active_) return;
  const auto number = static_cast<std::uint32_t>(step);
  step_.upload(context_, {&number, 1});
  packed_weights_.refresh();
}

void RecordedMicrobatches::run(const Pass& pass, Index i, const Microbatch& microbatch,
                               const std::function<void(const Pass&)>& compute) {
  if (!active_ || i >= std::ssize(recorded_)) return compute(pass);
  Recorded& recorded = recorded_[static_cast<std::size_t>(i)];
  if (recorded.graph) {
    prepare(recorded, pass.step, microbatch);
  } else {
    recorded.microbatch = microbatch;
    record(recorded, pass, compute);
  }
  recorded.graph->launch(context_);
}

void RecordedMicrobatches::record(Recorded& recorded, const Pass& pass,
                                  const std::function<void(const Pass&)>& compute) {
  recorded.recording.step = step_.data();
  Pass recording = pass;
  recording.recording = &recorded.recording;
  recorded.before = gradients_.state();
  recorded.graph = kernels::record(context_, [&] { compute(recording); });
  recorded.after = gradients_.state();
}

// What the host has done beside the launches when they were recorded.
void RecordedMicrobatches::prepare(Recorded& recorded, Index step, const Microbatch& microbatch) {
  if (microbatch != recorded.microbatch || gradients_.state() != recorded.before)
    fail(
        "step {}: a microbatch's launches were recorded for other arrays: please report this, and go on with "
        "compute.graphs = off",
        step + 1);
  for (const auto& redraw : recorded.recording.redraws) redraw(*recorded.graph, step);
  gradients_.set_state(recorded.after);
}

}  // namespace switchyard
