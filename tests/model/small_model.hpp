// A vision transformer with all that a pass over it needs, and the passes themselves: what the tests of models drive.
#pragma once

#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "model/model.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {

// A batch in host memory.
struct Batch {
  Index samples = 0, microbatch = 0;
  std::vector<std::uint8_t> images;  // (samples, height, width, channels)
  std::vector<std::int32_t> labels;  // (samples)
  std::vector<float> features = {};  // as images; empty but where samples are real numbers
  Index num_microbatches() const { return samples / microbatch; }
};

constexpr std::pair<const char*, double AuxiliaryLosses::*> kAuxiliaryLosses[] = {
    {"balance", &AuxiliaryLosses::balance},         {"z", &AuxiliaryLosses::z},
    {"importance", &AuxiliaryLosses::importance},   {"load", &AuxiliaryLosses::load},
    {"consistency", &AuxiliaryLosses::consistency}, {"hardening", &AuxiliaryLosses::hardening}};

// How a batch is passed over; defaults as in golden files: no dropout.
struct PassOptions {
  std::uint64_t seed = 1;
  bool training = true;
  float dropout = 0;
};

// What came out for this rank's microbatches (logits and losses by sample; each microbatch's samples once for every
// pass) and for the whole batch (the rest).
struct Outcome {
  std::vector<float> logits;     // (this rank's samples, classes), bias included
  std::vector<float> losses;     // (this rank's samples)
  std::vector<float> gradients;  // (store.trained_size())
  double loss = 0;               // mean over the batch, both passes together
  AuxiliaryLosses auxiliary;     // mean over the batch's microbatches
  double exchange_seconds = 0;   // of this rank's tokens and their gradients on their way
  // (this rank's microbatches * blocks with a mixture):
  std::vector<std::vector<std::int32_t>> tokens_per_expert;  // (experts)
  std::vector<std::vector<std::int32_t>> experts;            // (tokens * top_k), in training
};

class SmallModel {
 public:
  SmallModel(const ModelOptions& options, Mesh& mesh)
      : mesh_(mesh),
        model_(make_model(options, table_)),
        local_experts_(options.ffn.num_experts / mesh.expert_group().size()) {
    parameters_ = std::make_unique<ParameterStore>(Device::kCpu, table_, local_experts_ * mesh.expert_group().rank(),
                                                   local_experts_);
  }

  const ParameterTable& table() const { return table_; }
  ParameterStore& parameters() { return *parameters_; }
  Model& model() { return *model_; }

  // values: of the whole parameter, experts first.
  void set(ParameterId id, const std::vector<float>& values) {
    const Index first = table_[id].per_expert ? parameters_->first_expert() * table_[id].slice_size() : 0;
    std::copy_n(values.begin() + first, size_of(id), parameters_->values() + parameters_->offset(id));
  }
  // This rank's part of a whole parameter, or of its gradient.
  std::vector<float> part(ParameterId id, const std::vector<float>& values) const {
    const Index first = table_[id].per_expert ? parameters_->first_expert() * table_[id].slice_size() : 0;
    return {values.begin() + first, values.begin() + first + size_of(id)};
  }
  Index size_of(ParameterId id) const { return parameters_->local_slices(id) * table_[id].slice_size(); }

  // Forward, and in training backward, over this rank's microbatches of the batch.
  Outcome run(const Batch& batch, const PassOptions& how) {
    const Index count = batch.num_microbatches(), local = count / mesh_.world().size();
    GradientSums sums(Device::kCpu, *parameters_, local, 1, mesh_, {}, 1 + std::ssize(kAuxiliaryLosses));
    PhaseSeconds seconds;
    Pass pass{.context = cpu_,
              .arena = arena_,
              .parameters = *parameters_,
              .expert_group = mesh_.expert_group(),
              .seconds = seconds,
              .seed = how.seed,
              .training = how.training,
              .dropout = how.dropout,
              .loss_scale = 1 / static_cast<double>(batch.samples),
              .auxiliary_scale = 1 / static_cast<double>(count),
              .num_microbatches = count,
              .microbatches_per_rank = local};
    if (how.training) pass.gradients = &sums;
    if (!how.training) model_->prepare_evaluation(pass);

    Outcome outcome;
    for (Index i = 0; i < local; ++i) {
      const kernels::ArenaScope scope(arena_);
      forward(pass, batch, mesh_.world().rank() * local + i, outcome);
      if (how.training) model_->backward(pass);
      if (how.training) add_metrics(sums, outcome);
    }
    outcome.exchange_seconds = seconds.exchange;
    if (!how.training) return outcome;
    const GradientSums::Totals totals = sums.finish(cpu_);
    outcome.gradients.assign(totals.gradients, totals.gradients + parameters_->trained_size());
    outcome.loss = double{totals.metrics[0]} / static_cast<double>(batch.samples);
    const float* sum = totals.metrics + 1;
    for (const auto& [name, loss] : kAuxiliaryLosses)
      outcome.auxiliary.*loss = double{*sum++} / static_cast<double>(count);
    return outcome;
  }

 private:
  void forward(const Pass& pass, const Batch& batch, Index microbatch_idx, Outcome& outcome) {
    const ModelOptions& options = model_->options();
    const Index first = microbatch_idx * batch.microbatch, classes = options.classes;
    const Index image_bytes = options.image_height * options.image_width * options.channels;
    const float* features = batch.features.empty() ? nullptr : batch.features.data() + first * image_bytes;
    const Model::Losses losses = model_->forward(
        pass,
        {batch.microbatch, first, batch.images.data() + first * image_bytes, batch.labels.data() + first, features});
    const float* bias = model_->logits_bias() >= 0 ? parameters_->value(model_->logits_bias()) : nullptr;
    for (Index i = 0; i < losses.rows * classes; ++i)
      outcome.logits.push_back(model_->logits()[i] + (bias ? bias[i % classes] : 0));
    outcome.losses.insert(outcome.losses.end(), losses.loss, losses.loss + losses.rows);
    rows_ = losses.rows;
    auxiliary_ = losses.auxiliary;
    for (const Index block : model_->mixture_blocks()) {
      const RoutePlan* plan = model_->ffn(block).plan();
      outcome.tokens_per_expert.emplace_back(plan->tokens_per_expert);
      if (pass.training) outcome.experts.emplace_back(plan->experts, plan->experts + plan->tokens * plan->top_k);
    }
  }

  void add_metrics(GradientSums& sums, const Outcome& outcome) {
    const GradientSums::Leaf leaf = sums.metrics_leaf(arena_);
    leaf.data[0] = 0;
    for (auto loss = outcome.losses.end() - rows_; loss != outcome.losses.end(); ++loss) leaf.data[0] += *loss;
    float* place = leaf.data + 1;
    for (const auto& [name, loss] : kAuxiliaryLosses) *place++ = static_cast<float>(auxiliary_.*loss);
    sums.add(cpu_, leaf);
  }

  Cpu cpu_;
  Mesh& mesh_;
  ParameterTable table_;
  std::unique_ptr<Model> model_;
  Index local_experts_;
  std::unique_ptr<ParameterStore> parameters_;
  kernels::Arena arena_{Device::kCpu};
  Index rows_ = 0;  // these two: of the last microbatch
  AuxiliaryLosses auxiliary_;
};

}  // namespace switchyard::testing
