// Noisy top-k routing (Shazeer et al., 1701.06538): for a token x of the microbatch, with Wg and Wn (experts, width),
// both zero at the start,
//   H = x Wg^T + n (softplus(x Wn^T) + f),  n standard normal for each token and expert in training, 0 in evaluation,
//   T = the k experts with the largest H,  w = softmax over T of H,  y = sum over e in T of w_e expert_e(x)
// and no bias but where ffn.gate_tilt asks for a tilted start, then H has + bg with bg (experts).
// By default k = 2 and the importance and load losses with 0.1 each (gate_losses.hpp). The load of an expert is smooth:
// the probability, over new noise for that expert, of being among the k largest. Its slope grows as one over the
// noise's standard deviation, and as nothing keeps the gate from learning to do without noise, f = ffn.noise_floor =
// 0.01 bounds it, as in the code of Tensor2Tensor and FastMoE; f = 0 is the paper's equation. Capacities: top_k.
#include "core/error.hpp"
#include "kernels/api/elementwise.hpp"
#include "routing/gated_router.hpp"

namespace switchyard {

namespace {

class NoisyTopKRouter final : public GatedRouter {
 public:
  NoisyTopKRouter(const RouterOptions& options, ParameterTable& table)
      : GatedRouter(options,
                    {.top_k = options.top_k,
                     .renormalise = true,
                     .has_bias = false,
                     .starts_at_zero = true,
                     .losses = {or_own(options.balance_loss, 0), options.z_loss, or_own(options.importance_loss, 0.1),
                                options.top_k < options.num_experts ? or_own(options.load_loss, 0.1) : 0}},
                    table),
        num_experts_(options.num_experts),
        top_k_(options.top_k),
        floor_(static_cast<float>(options.noise_floor)) {
    refuse_sigmoid(options);
    if (options.gate_init != 1)
      fail_usage("ffn.gate_init = {}: the gate of noisy_top_k starts at 0: leave it at 1.", options.gate_init);
    if (options.load_loss > 0 && options.top_k == options.num_experts)
      fail_usage(
          "ffn.load_loss = {}: with ffn.top_k = ffn.experts = {} every token goes to every expert and the load is "
          "even: set it to 0, or lower ffn.top_k.",
          options.load_loss, options.top_k);
    const Initializer tilted{.added_to_first = options.gate_tilt};
    if (options.gate_tilt != 0) bias_ = table.add({options.prefix + ".bias", {num_experts_}, false, tilted});
    noise_weight_ = table.add({options.prefix + ".noise", {num_experts_, options.width}, false, {}});
  }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses* losses) override {
    const kernels::Operand x = gate_.perturbed(input);
    clean_ = gate_.logits(input, x);
    if (bias_ >= 0)
      kernels::bias_add(input.context, {.rows = input.tokens(),
                                        .cols = num_experts_,
                                        .x = clean_,
                                        .bias = input.parameters.value(bias_),
                                        .y = clean_});
    if (!input.training) return gate_.choose(input, clean_, losses);
    const Index size = input.tokens() * num_experts_;
    raw_ = gate_.logits(input, x, noise_weight_);
    noise_ = input.arena.take<float>(size);
    noisy_ = input.arena.take<float>(size);
    kernels::noisy_logits(input.context, {.tokens = input.tokens(),
                                          .num_experts = num_experts_,
                                          .floor = floor_,
                                          .clean = clean_,
                                          .raw = raw_,
                                          .key = input.key(Purpose::kGateNoise),
                                          .first_row = static_cast<std::uint32_t>(input.first_token()),
                                          .noise = noise_,
                                          .noisy = noisy_});
    float* load_probability = nullptr;
    if (gate_.losses().weights().load > 0) {
      load_probability = input.arena.take<float>(size);
      kernels::load_probability(input.context, {.tokens = input.tokens(),
                                                .num_experts = num_experts_,
                                                .top_k = top_k_,
                                                .floor = floor_,
                                                .clean = clean_,
                                                .raw = raw_,
                                                .noisy = noisy_,
                                                .probability = load_probability});
    }
    float* logits = input.arena.take<float>(size);  // choose() overwrites them, and the way back needs noisy_
    kernels::copy(input.context, logits, noisy_, size * Index{sizeof(float)});
    return gate_.choose(input, logits, losses, nullptr, load_probability);
  }

  void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double auxiliary_scale,
                float* d_x, GradientSums& gradients) override {
    const kernels::ArenaScope scope(input.arena);
    float* d_noisy = gate_.choice_backward(input, plan, d_weights, auxiliary_scale);
    float* d_raw = input.arena.take<float>(plan.tokens * num_experts_);
    kernels::noisy_backward(input.context, {.tokens = plan.tokens,
                                            .num_experts = num_experts_,
                                            .top_k = top_k_,
                                            .floor = floor_,
                                            .clean = clean_,
                                            .raw = raw_,
                                            .noise = noise_,
                                            .noisy = noisy_,
                                            .d_noisy = d_noisy,
                                            .d_load = gate_.losses().load_gradient(input, auxiliary_scale),
                                            .d_clean = d_noisy,
                                            .d_raw = d_raw});
    gate_.backward(input, d_noisy, {d_raw, noise_weight_}, d_x, gradients);
    if (bias_ < 0) return;
    const auto d_bias = gradients.leaf(bias_, input.arena);
    kernels::column_sum(input.context, {.rows = plan.tokens, .cols = num_experts_, .x = d_noisy, .sums = d_bias.data});
    gradients.add(input.context, d_bias);
  }

 private:
  Index num_experts_, top_k_;
  float floor_;
  ParameterId noise_weight_ = -1, bias_ = -1;
  // (tokens, experts) of the microbatch at hand, in the arena:
  float *clean_ = nullptr, *raw_ = nullptr, *noise_ = nullptr, *noisy_ = nullptr;
};

}  // namespace

std::unique_ptr<Router> make_noisy_top_k_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<NoisyTopKRouter>(options, table);
}

}  // namespace switchyard
