// Routing of a row of patches x_1 ... x_P as a whole (Chen et al., 2208.02813): with Wg (experts, width / P), zero at
// the start, and no bias,
//   H = sum over p of x_p Wg^T + u,  u uniform over [0, 1) for each row and expert, in training and in evaluation,
//   y = H_e expert_e(x),  e the expert with the largest H
// The weight is the noisy logit itself: no softmax, as in the paper's code for synthetic data (where the network is
// never switched to evaluation, so that it keeps its noise). A row of any other model is one patch. No auxiliary
// losses.
#include "core/error.hpp"
#include "kernels/api/gate.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/patch_conv.hpp"
#include "routing/router.hpp"

namespace switchyard {

namespace {

class PatchSumRouter final : public Router {
 public:
  PatchSumRouter(const RouterOptions& options, ParameterTable& table)
      : options_(options), patch_width_(options.width / options.patches) {
    refuse_load_loss(options);
    refuse_gate(options);
    weight_ = table.add({options.prefix + ".weight", {options.num_experts, patch_width_}, false, {}});
  }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses*) override {
    RoutePlan plan;
    plan.tokens = input.tokens();
    plan.num_experts = options_.num_experts;
    plan.experts = input.arena.take<std::int32_t>(plan.tokens);
    plan.weights = input.arena.take<float>(plan.tokens);
    sums_ = input.x.values;
    if (options_.patches > 1) {
      float* sums = input.arena.take<float>(plan.tokens * patch_width_);
      kernels::patch_sum(
          input.context,
          {.rows = plan.tokens, .patches = options_.patches, .cols = patch_width_, .x = input.x.values, .y = sums});
      sums_ = sums;
    }
    float* logits = input.arena.take<float>(plan.tokens * plan.num_experts);
    kernels::gemm(input.context, linear(plan.tokens).forward(sums_, input.parameters.value(weight_), logits));
    const Purpose purpose = input.training ? Purpose::kGateNoise : Purpose::kRouteEvaluation;
    kernels::noisy_choice(input.context, {.tokens = plan.tokens,
                                          .num_experts = plan.num_experts,
                                          .logits = logits,
                                          .key = input.key(purpose),
                                          .first_row = static_cast<std::uint32_t>(input.first_token()),
                                          .experts = plan.experts,
                                          .weights = plan.weights});
    fill_slots(input, expert_capacity(options_, input, 1, plan.num_experts), plan);
    return plan;
  }

  bool needs_weight_gradients() const override { return true; }

  void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double, float* d_x,
                GradientSums& gradients) override {
    const kernels::ArenaScope scope(input.arena);
    float* d_logits = input.arena.take<float>(plan.tokens * plan.num_experts);
    kernels::noisy_choice_backward(input.context, {.tokens = plan.tokens,
                                                   .num_experts = plan.num_experts,
                                                   .experts = plan.experts,
                                                   .d_weights = d_weights,
                                                   .d_logits = d_logits});
    kernels::gemm(input.context, gradients.leaf_product(weight_, linear(plan.tokens).weight_gradient(d_logits, sums_)));
    if (!d_x) return;
    for (Index p = 0; p < options_.patches; ++p) {
      float* d_patch = d_x + p * patch_width_;
      kernels::Gemm product = linear(plan.tokens).input_gradient(d_logits, input.parameters.value(weight_), d_patch);
      product.ldc = options_.width;
      kernels::gemm(input.context, product);
    }
  }

 private:
  kernels::LinearProducts linear(Index rows) const { return {rows, patch_width_, options_.num_experts}; }

  RouterOptions options_;
  Index patch_width_;
  ParameterId weight_ = -1;
  const float* sums_ = nullptr;  // (tokens, patch_width) of the microbatch at hand: sums over patches
};

}  // namespace

std::unique_ptr<Router> make_patch_sum_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<PatchSumRouter>(options, table);
}

}  // namespace switchyard
