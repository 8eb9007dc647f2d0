// Switch routing (Fedus, Zoph & Shazeer, 2101.03961): for a token x of the microbatch,
//   p = softmax(x Wg^T + bg),  e = argmax p,  y = p_e expert_e(x)
// with Wg (experts, width), bg (experts), all in fp32, and the balance loss of one layer and microbatch
//   alpha E sum_e f_e P_e,  f_e = the fraction of tokens sent to e (no gradient),  P_e = the mean of p_e over tokens.
// A perfectly even load gives alpha.
#include <cmath>

#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/routing.hpp"
#include "routing/router.hpp"

namespace switchyard {

namespace {

class SwitchRouter final : public Router {
 public:
  SwitchRouter(const RouterOptions& options, ParameterTable& table)
      : num_experts_(options.num_experts), width_(options.width), alpha_(options.balance_loss) {
    const Initializer uniform{Initializer::Kind::kUniform, 1 / std::sqrt(static_cast<double>(width_))};
    weight_ = table.add({options.prefix + ".weight", {num_experts_, width_}, false, uniform});
    bias_ = table.add({options.prefix + ".bias", {num_experts_}, false, uniform});
  }

  bool needs_weight_gradients() const override { return true; }

  RoutePlan route(const RouteInput& input, double* auxiliary_loss) override {
    RoutePlan plan;
    plan.tokens = input.tokens();
    plan.num_experts = num_experts_;
    plan.experts = input.arena.take<std::int32_t>(plan.tokens);
    plan.weights = input.arena.take<float>(plan.tokens);
    probabilities_ = input.arena.take<float>(plan.tokens * num_experts_);

    kernels::gemm(input.context, gate(input).forward(input.x, input.parameters.value(weight_), probabilities_));
    kernels::Top1Gate top1;
    top1.tokens = plan.tokens;
    top1.num_experts = num_experts_;
    top1.logits = probabilities_;
    top1.bias = input.parameters.value(bias_);
    top1.probabilities = probabilities_;
    top1.experts = plan.experts;
    top1.weights = plan.weights;
    kernels::top1_gate(input.context, top1);
    fill_slots(input, plan);
    read_counts(input, plan, auxiliary_loss);
    return plan;
  }

  void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double auxiliary_scale,
                float* d_x, GradientSums& gradients) override {
    const kernels::ArenaScope scope(input.arena);
    float* d_logits = input.arena.take<float>(plan.tokens * num_experts_);
    kernels::Top1GateBackward top1;
    top1.tokens = plan.tokens;
    top1.num_experts = num_experts_;
    top1.probabilities = probabilities_;
    top1.experts = plan.experts;
    top1.d_weights = d_weights;
    top1.tokens_per_expert = plan.device_counts;
    // d (alpha E sum_e f_e P_e) / d p[t, e] = alpha E (count_e / tokens) / tokens
    const auto tokens = static_cast<double>(plan.tokens);
    top1.balance_scale =
        static_cast<float>(auxiliary_scale * alpha_ * static_cast<double>(num_experts_) / (tokens * tokens));
    top1.d_logits = d_logits;
    kernels::top1_gate_backward(input.context, top1);

    const auto d_bias = gradients.leaf(bias_, input.arena);
    kernels::Gemm products[] = {
        gradients.leaf_product(weight_, gate(input).weight_gradient(d_logits, input.x)),
        gate(input).input_gradient(d_logits, input.parameters.value(weight_), d_x),
    };
    products[1].num_addends = 1;
    products[1].addends[0] = d_x;
    kernels::gemm(input.context, products);
    kernels::column_sum(input.context, {.rows = plan.tokens, .cols = num_experts_, .x = d_logits, .sums = d_bias.data});
    gradients.add(input.context, d_bias);
  }

 private:
  // In fp32 whatever the layers' precision: a choice of experts hangs on small differences.
  kernels::LinearProducts gate(const RouteInput& input) const { return {input.tokens(), width_, num_experts_}; }

  // Counts, which the exchange needs on the host anyway, and with them the balance loss.
  void read_counts(const RouteInput& input, RoutePlan& plan, double* auxiliary_loss) {
    plan.tokens_per_expert.resize(static_cast<std::size_t>(num_experts_));
    kernels::copy_to_host(input.context, plan.tokens_per_expert.data(), plan.device_counts, num_experts_ * 4);
    if (!input.training || plan.tokens == 0) return;
    const kernels::ArenaScope scope(input.arena);
    float* sums = input.arena.take<float>(num_experts_);
    kernels::column_sum(input.context, {.rows = plan.tokens, .cols = num_experts_, .x = probabilities_, .sums = sums});
    std::vector<float> host_sums(static_cast<std::size_t>(num_experts_));
    kernels::copy_to_host(input.context, host_sums.data(), sums, num_experts_ * 4);
    double sum = 0;
    for (std::size_t e = 0; e < host_sums.size(); ++e) sum += double{host_sums[e]} * plan.tokens_per_expert[e];
    const auto tokens = static_cast<double>(plan.tokens);
    *auxiliary_loss += alpha_ * static_cast<double>(num_experts_) * sum / (tokens * tokens);
  }

  Index num_experts_, width_;
  double alpha_;
  ParameterId weight_, bias_;
  float* probabilities_ = nullptr;  // (tokens, experts) of the microbatch at hand
};

}  // namespace

std::unique_ptr<Router> make_switch_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<SwitchRouter>(options, table);
}

}  // namespace switchyard
