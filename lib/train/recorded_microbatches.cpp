#include "train/recorded_microbatches.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace switchyard {

namespace {

constexpr Index kMostGraphs = 256;  // each takes memory of the GPU for hundreds of launches

}  // namespace

RecordedMicrobatches::RecordedMicrobatches(const Context& context, Index num_kinds, Index count,
                                           GradientSums& gradients, PackedWeights& packed_weights)
    : context_(context),
      gradients_(gradients),
      packed_weights_(packed_weights),
      kinds_(static_cast<std::size_t>(num_kinds)),
      step_(context.device, 1) {
  const Index of_kind = std::min(count, kMostGraphs / num_kinds);
  for (Kind& kind : kinds_) kind.microbatches.resize(static_cast<std::size_t>(of_kind));
}

// Whether weights are out of date in the first microbatch depends on evaluations before: so they are packed here.
void RecordedMicrobatches::begin_step(Index step, Index kind, bool allowed) {
  kind_ = &kinds_[static_cast<std::size_t>(kind)];
  prepares_ = allowed && std::any_of(kind_->microbatches.begin(), kind_->microbatches.end(),
                                     [](const Recorded& recorded) { return !recorded.graph; });
  active_ = allowed && kind_->has_room;
  kind_->has_room = true;
  if (!active_) return;
  const auto number = static_cast<std::uint32_t>(step);
  step_.upload(context_, {&number, 1});
  packed_weights_.refresh(kind_->weights);
}

void RecordedMicrobatches::run(const Pass& pass, Index i, const Microbatch& microbatch,
                               const std::function<void(const Pass&)>& compute) {
  if (!active_ || i >= std::ssize(kind_->microbatches)) {
    packed_weights_.note(&kind_->weights);
    compute(pass);
    packed_weights_.note(nullptr);
    return;
  }
  Recorded& recorded = kind_->microbatches[static_cast<std::size_t>(i)];
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
