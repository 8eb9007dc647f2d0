#include "routing/learned_gate.hpp"

#include <cmath>

#include "core/error.hpp"
#include "kernels/api/elementwise.hpp"
#include "routing/gating_dropout.hpp"

namespace switchyard {

kernels::Scores scores_of(const RouterOptions& options) {
  if (options.scores == "softmax") return kernels::Scores::kSoftmax;
  if (options.scores == "sigmoid") return kernels::Scores::kSigmoid;
  fail_usage("ffn.scores: \"{}\" is not one of softmax, sigmoid", options.scores);
}

LearnedGate::LearnedGate(const RouterOptions& options, const LearnedGateOptions& gate, ParameterTable& table)
    : options_(options), gate_(gate), losses_(gate.losses, options.num_experts) {
  if (gate.top_k > options.num_experts)
    fail_usage("ffn.top_k = {} is more than the ffn.experts = {} there are: lower it.", gate.top_k,
               options.num_experts);
  if (gate.losses.z > 0 && gate.scores != kernels::Scores::kSoftmax)
    fail_usage("ffn.z_loss = {}: the z-loss is that of a softmax: set it to 0, or ffn.scores = softmax.",
               gate.losses.z);
  check_gating_dropout(options, gate.top_k);
  Initializer start{Initializer::Kind::kUniform, options.gate_init / std::sqrt(static_cast<double>(options.width))};
  if (gate.starts_at_zero) start = {};
  weight_ = table.add({options.prefix + ".weight", {options.num_experts, options.width}, false, start});
  start.added_to_first = options.gate_tilt;
  if (gate.has_bias) bias_ = table.add({options.prefix + ".bias", {options.num_experts}, false, start});
}

bool LearnedGate::perturbs(const RouteInput& input) const { return input.training && can_perturb(); }

bool LearnedGate::can_perturb() const { return options_.gate_jitter > 0 || options_.gate_dropout > 0; }

kernels::Readers LearnedGate::readers() const {
  const bool takes_rounded = !can_perturb() && options_.num_experts <= kernels::kMostExpertsOfRounded;
  return takes_rounded ? kernels::Readers::kProducts : kernels::Readers::kOthers;
}

kernels::PerturbInput LearnedGate::perturbation(const RouteInput& input) const {
  const auto first_row = static_cast<std::uint32_t>(input.first_token());
  kernels::PerturbInput perturb;
  perturb.rows = input.tokens();
  perturb.cols = options_.width;
  perturb.jitter = static_cast<float>(options_.gate_jitter);
  perturb.jitter_key = input.key(Purpose::kGateJitter);
  perturb.first_row = first_row;
  perturb.dropout.probability = static_cast<float>(options_.gate_dropout);
  perturb.dropout.key = input.key(Purpose::kGateDropout);
  perturb.dropout.first_row = first_row;
  return perturb;
}

kernels::Operand LearnedGate::perturbed(const RouteInput& input) {
  x_ = readers() == kernels::Readers::kOthers ? kernels::Operand(input.x.values) : input.x;
  if (!perturbs(input)) return x_;
  kernels::PerturbInput perturb = perturbation(input);
  perturb.x = input.x.values;
  perturb.y = input.arena.take<float>(perturb.rows * perturb.cols);
  kernels::perturb_input(input.context, perturb);
  return x_ = perturb.y;
}

float* LearnedGate::logits(const RouteInput& input, const kernels::Operand& perturbed_x, ParameterId weight) const {
  float* logits = input.arena.take<float>(input.tokens() * options_.num_experts);
  kernels::gate_logits(input.context, {.tokens = input.tokens(),
                                       .width = options_.width,
                                       .num_experts = options_.num_experts,
                                       .x = perturbed_x,
                                       .weight = input.parameters.value(weight),
                                       .logits = logits});
  return logits;
}

RoutePlan LearnedGate::score(const RouteInput& input, float* logits, const float* selection_bias) {
  RoutePlan plan;
  plan.tokens = input.tokens();
  plan.top_k = gate_.top_k;
  plan.num_experts = options_.num_experts;
  plan.experts = input.arena.take<std::int32_t>(plan.tokens * plan.top_k);
  plan.weights = input.arena.take<float>(plan.tokens * plan.top_k);
  const bool is_softmax = gate_.scores == kernels::Scores::kSoftmax;
  scores_ = logits;
  probabilities_ = is_softmax ? logits : input.arena.take<float>(plan.tokens * plan.num_experts);
  plan.probabilities = probabilities_;
  log_sum_exp_ = gate_.losses.z > 0 && input.training ? input.arena.take<float>(plan.tokens) : nullptr;
  const ExpertRange allowed = allowed_experts(options_, input);
  kernels::gate(input.context, {.tokens = plan.tokens,
                                .num_experts = plan.num_experts,
                                .top_k = plan.top_k,
                                .first_expert = allowed.first,
                                .end_expert = allowed.end,
                                .kind = gate_.scores,
                                .renormalise = gate_.renormalise,
                                .logits = logits,
                                .bias = bias_ < 0 ? nullptr : input.parameters.value(bias_),
                                .selection_bias = selection_bias,
                                .scores = scores_,
                                .probabilities = probabilities_,
                                .experts = plan.experts,
                                .weights = plan.weights,
                                .log_sum_exp = log_sum_exp_});
  return plan;
}

RoutePlan LearnedGate::choose(const RouteInput& input, float* logits, AuxiliaryLosses* losses,
                              const float* selection_bias, const float* load_probability) {
  RoutePlan plan = score(input, logits, selection_bias);
  const ExpertRange allowed = allowed_experts(options_, input);
  fill_slots(input, expert_capacity(options_, input, plan.top_k, allowed.end - allowed.first), plan, losses,
             load_probability);
  return plan;
}

void LearnedGate::fill_slots(const RouteInput& input, const Capacity& capacity, RoutePlan& plan,
                             AuxiliaryLosses* losses, const float* load_probability) {
  const ExpertRange allowed = allowed_experts(options_, input);
  const bool all_allowed = allowed.end - allowed.first == options_.num_experts;
  switchyard::fill_slots(input, capacity, plan,
                         losses_.sum(input, plan, {probabilities_, log_sum_exp_, load_probability, all_allowed}));
  losses_.measure(plan, losses);
}

float* LearnedGate::choice_backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights,
                                    double auxiliary_scale) const {
  kernels::GateBackward backward;
  backward.tokens = plan.tokens;
  backward.num_experts = plan.num_experts;
  backward.top_k = plan.top_k;
  backward.kind = gate_.scores;
  backward.renormalise = gate_.renormalise;
  backward.scores = scores_;
  backward.probabilities = probabilities_;
  backward.experts = plan.experts;
  backward.weights = plan.weights;
  backward.d_weights = d_weights;
  backward.log_sum_exp = log_sum_exp_;
  losses_.add_gradients(input, auxiliary_scale, backward);
  backward.d_logits = input.arena.take<float>(plan.tokens * plan.num_experts);
  kernels::gate_backward(input.context, backward);
  return backward.d_logits;
}

void LearnedGate::backward_through(const RouteInput& input, const LogitsGradient& logits, float* d_x, bool adds,
                                   GradientSums& gradients) const {
  const kernels::ArenaScope scope(input.arena);
  const auto d_weight = gradients.leaf(logits.weight, input.arena);
  kernels::gate_logits_backward(input.context, {.tokens = input.tokens(),
                                                .width = options_.width,
                                                .num_experts = options_.num_experts,
                                                .x = x_,
                                                .weight = input.parameters.value(logits.weight),
                                                .d_logits = logits.d_logits,
                                                .d_x = d_x,
                                                .adds_to_d_x = adds,
                                                .d_weight = d_weight.data});
  gradients.add(input.context, d_weight);
}

void LearnedGate::backward(const RouteInput& input, const float* d_logits, const LogitsGradient& other, float* d_x,
                           GradientSums& gradients) const {
  backward_through(input, {d_logits, weight_}, d_x, false, gradients);
  if (other.d_logits) backward_through(input, other, d_x, true, gradients);
  if (d_x && perturbs(input)) {
    kernels::PerturbInput perturb = perturbation(input);
    perturb.x = perturb.y = d_x;
    kernels::perturb_input(input.context, perturb);
  }
  if (bias_ < 0) return;
  const kernels::ArenaScope scope(input.arena);
  const auto d_bias = gradients.leaf(bias_, input.arena);
  kernels::column_sum(input.context,
                      {.rows = input.tokens(), .cols = options_.num_experts, .x = d_logits, .sums = d_bias.data});
  gradients.add(input.context, d_bias);
}

}  // namespace switchyard
