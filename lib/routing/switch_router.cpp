// Switch routing (Fedus, Zoph & Shazeer, 2101.03961): for a token x of the microbatch,
//   p = softmax(x Wg^T + bg),  e = argmax p,  y = p_e expert_e(x)
// with Wg (experts, width), bg (experts), all in fp32, and by default the balance loss with alpha = 0.01
// (gate_losses.hpp). With ffn.renormalise y = expert_e(x): nothing but the auxiliary losses then trains the gate.
#include "routing/learned_gate.hpp"

namespace switchyard {

namespace {

class SwitchRouter final : public Router {
 public:
  SwitchRouter(const RouterOptions& options, ParameterTable& table)
      : gate_(options,
              {.top_k = 1,
               .renormalise = options.renormalise,
               .losses = {or_own(options.balance_loss, 0.01), options.z_loss, or_own(options.importance_loss, 0)}},
              table) {
    refuse_load_loss(options);
    refuse_sigmoid(options);
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

std::unique_ptr<Router> make_switch_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<SwitchRouter>(options, table);
}

}  // namespace switchyard
