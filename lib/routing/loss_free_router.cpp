// Loss-free balancing (Wang et al., 2408.15664): top-k routing whose choice, but not whose weight, is moved by a bias b
// (experts) that no gradient trains,
//   T = the k experts with the largest s_e + b_e,  y = sum over e in T of s_e expert_e(x),  s = softmax or sigmoid
// (weights over their sum with ffn.renormalise), and after each step, with c_e the tokens of the whole batch that e was
// chosen for,
//   b_e += u sign(mean of c - c_e),  u = ffn.bias_rate = 0.001, b = 0 at the start.
// No balance loss by default; capacities as with top_k. The counts are whole numbers, below 2^24 of them exact in a
// float, and so is their sum over ranks.
#include "core/error.hpp"
#include "routing/gated_router.hpp"

namespace switchyard {

namespace {

class LossFreeRouter final : public GatedRouter {
 public:
  LossFreeRouter(const RouterOptions& options, ParameterTable& table)
      : GatedRouter(options,
                    {.top_k = options.top_k,
                     .scores = scores_of(options),
                     .renormalise = options.renormalise,
                     .losses = {or_own(options.balance_loss, 0), options.z_loss, or_own(options.importance_loss, 0)}},
                    table),
        rate_(options.bias_rate) {
    refuse_load_loss(options);
    refuse_noise_floor(options);
    bias_ = table.add({.name = options.prefix + ".selection_bias",
                       .shape = {options.num_experts},
                       .per_expert = false,
                       .initializer = {},
                       .trained = false});
  }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses* losses) override {
    return gate_.choose(input, gate_.logits(input, gate_.perturbed(input)), losses, input.parameters.value(bias_));
  }

  void after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters) override {
    const auto bytes = static_cast<Index>(chosen.size_bytes());
    float* device = parameters.values() + parameters.offset(bias_);
    std::vector<float> bias(chosen.size());
    kernels::copy_to_host(context, bias.data(), device, bytes);
    double total = 0;
    for (float count : chosen) total += double{count};
    for (std::size_t e = 0; e < bias.size(); ++e) {
      const double error = total - double{chosen[e]} * static_cast<double>(chosen.size());  // of E times the counts
      if (error != 0) bias[e] += static_cast<float>(error > 0 ? rate_ : -rate_);
    }
    kernels::copy_to_device(context, device, bias.data(), bytes);
  }

 private:
  double rate_;
  ParameterId bias_ = -1;
};

}  // namespace

std::unique_ptr<Router> make_loss_free_router(const RouterOptions& options, ParameterTable& table) {
  return std::make_unique<LossFreeRouter>(options, table);
}

}  // namespace switchyard
