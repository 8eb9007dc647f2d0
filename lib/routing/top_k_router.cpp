// Top-k routing: for a token x of the microbatch, with z = x Wg^T + bg, Wg (experts, width), bg (experts),
//   s = softmax(z) or sigmoid(z),  T = the k experts with the largest s,  y = sum over e in T of w_e expert_e(x),
//   w_e = s_e, or s_e / sum over i in T of s_i with ffn.renormalise
// as in Shazeer et al. (1701.06538) without noise and, with k = 2 and renormalisation, GShard (Lepikhin et al.,
// 2006.16668). By default the balance loss with alpha = 0.01 (gate_losses.hpp), k = 2 and softmax.
#include "routing/learned_gate.hpp"

namespace switchyard {

namespace {

class TopKRouter final : public Router {
 public:
  TopKRouter(const RouterOptions& options, ParameterTable& table)
      : gate_(options,
              {.top_k = options.top_k,
               .scores = scores_of(options),
               .renormalise = options.renormalise,
               .losses = {or_own(options.balance_loss, 0.01), options.z_loss, or_own(options.importance_loss, 0)}},
              table) {
    refuse_load_loss(options);
  }

  bool needs_weight_gradients() const override { return true; }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses* losses) override {
    return gate_.choose(input, gate_.logits(input, gate_.perturbed(input)), losses);
  }

  void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double auxiliary_scale,
                float* d_x, GradientSums& gradients) override {
    gate_.backward(input, plan, d_weights, auxiliary_scale, d_x, gradients);
  }

 private:
  LearnedGate gate_;
};

}  // namespace

std::unique_ptr<Router> make_top_k_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<TopKRouter>(options, table);
}

}  // namespace switchyard
