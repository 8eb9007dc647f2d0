// A router with a learned gate. By itself it lets each token choose by the gate's scores alone, and the way back is the
// gate's; the others say what they do differently.
#pragma once

#include "routing/learned_gate.hpp"

namespace switchyard {

class GatedRouter : public Router {
 public:
  GatedRouter(const RouterOptions& options, const LearnedGateOptions& gate, ParameterTable& table)
      : gate_(options, gate, table) {}

  kernels::Readers readers() const final { return gate_.readers(); }
  bool needs_weight_gradients() const final { return true; }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses* losses) override {
    return gate_.choose(input, gate_.logits(input, gate_.perturbed(input)), losses);
  }

  void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double auxiliary_scale,
                float* d_x, GradientSums& gradients) override {
    const kernels::ArenaScope scope(input.arena);
    gate_.backward(input, gate_.choice_backward(input, plan, d_weights, auxiliary_scale), d_x, gradients);
  }

 protected:
  LearnedGate gate_;
};

}  // namespace switchyard
