// Expert choice (Zhou et al., 2202.09368): for the N tokens of a microbatch,
//   S = softmax over experts of (x Wg^T),  each expert e takes the C = floor(N c / E) tokens with its largest S[:, e],
//   y[t] = sum over the experts e that took t of S[t, e] expert_e(x[t])
// with Wg (experts, width), no bias, no balance loss. c, how many experts a token meets on average, is
// ffn.capacity_train, 2 where that is 0; in evaluation ffn.capacity_eval, the same c where that is 0. A token that
// nobody takes is carried by the residual. What a token meets depends on the other tokens of its microbatch, later ones
// included: not for causal models.
#include <cmath>

#include "core/error.hpp"
#include "routing/gated_router.hpp"

namespace switchyard {

namespace {

class ExpertChoiceRouter final : public GatedRouter {
 public:
  ExpertChoiceRouter(const RouterOptions& options, ParameterTable& table)
      : GatedRouter(options, {.has_bias = false, .losses = {.z = options.z_loss}}, table), options_(options) {
    refuse_load_loss(options);
    refuse_noise_floor(options);
    refuse_capacity_order(options);
    refuse_sigmoid(options);
    refuse_renormalise(options);
    if (or_own(options.balance_loss, 0) > 0 || or_own(options.importance_loss, 0) > 0)
      fail_usage(
          "ffn.router = expert_choice has no balance or importance loss, every expert takes equally many tokens: "
          "set ffn.balance_loss and ffn.importance_loss to 0, or -1 for the router's own.");
    if (options.gating_dropout > 0)
      fail_usage(
          "ffn.gating_dropout = {}: with expert_choice tokens do not choose, so none can stay home: set it to 0.",
          options.gating_dropout);
    if (options.gate_tilt != 0)
      fail_usage("ffn.gate_tilt = {}: with expert_choice no expert can take more tokens than another: set it to 0.",
                 options.gate_tilt);
    if (options.capacity_train > static_cast<double>(options.num_experts))
      fail_usage(
          "ffn.capacity_train = {}: with expert_choice a token meets so many of the {} experts on average: lower it.",
          options.capacity_train, options.num_experts);
    if (options.capacity_eval > static_cast<double>(options.num_experts))
      fail_usage(
          "ffn.capacity_eval = {}: with expert_choice a token meets so many of the {} experts on average: lower it.",
          options.capacity_eval, options.num_experts);
  }

  // The host reads the sums of losses.
  bool host_waits() const override { return options_.z_loss > 0; }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses* losses) override {
    RoutePlan plan = gate_.score(input, gate_.logits(input, gate_.perturbed(input)));
    plan.top_k = plan.num_experts;
    plan.experts = input.arena.take<std::int32_t>(plan.tokens * plan.top_k);
    plan.weights = input.arena.take<float>(plan.tokens * plan.top_k);
    kernels::expert_choice(input.context, {.tokens = plan.tokens,
                                           .num_experts = plan.num_experts,
                                           .capacity = capacity(input),
                                           .scores = plan.probabilities,
                                           .experts = plan.experts,
                                           .weights = plan.weights});
    plan.chosen.assign(static_cast<std::size_t>(plan.num_experts), static_cast<std::int32_t>(capacity(input)));
    // Microbatches of a training batch are all of one size; the last one of a test set may be smaller.
    plan.same_counts_everywhere = input.training;
    gate_.fill_slots(input, {}, plan, losses);
    return plan;
  }

 private:
  Index capacity(const RouteInput& input) const {
    const double factor = choices_per_token(options_, input.training);
    const double even = static_cast<double>(input.tokens()) / static_cast<double>(options_.num_experts);
    return std::min(input.tokens(), std::max<Index>(1, static_cast<Index>(std::floor(factor * even))));
  }

  RouterOptions options_;
};

}  // namespace

std::unique_ptr<Router> make_expert_choice_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<ExpertChoiceRouter>(options, table);
}

}  // namespace switchyard
