// Switch routing (Fedus, Zoph & Shazeer, 2101.03961): for a token x of the microbatch,
//   p = softmax(x Wg^T + bg),  e = argmax p,  y = p_e expert_e(x)
// with Wg (experts, width), bg (experts), all in fp32, and by default the balance loss with alpha = 0.01
// (gate_losses.hpp). With ffn.renormalise y = expert_e(x): nothing but the auxiliary losses then trains the gate.
#include "routing/gated_router.hpp"

namespace switchyard {

std::unique_ptr<Router> make_switch_router(const RouterOptions& options, ParameterTable& table) {
  refuse_load_loss(options);
  refuse_noise_floor(options);
  refuse_capacity_order(options);
  refuse_sigmoid(options);
  const LearnedGateOptions gate{
      .top_k = 1,
      .renormalise = options.renormalise,
      .losses = {or_own(options.balance_loss, 0.01), options.z_loss, or_own(options.importance_loss, 0)}};
  return std::make_unique<GatedRouter>(options, gate, table);
}

}  // namespace switchyard
