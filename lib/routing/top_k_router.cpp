// Top-k routing: for a token x of the microbatch, with z = x Wg^T + bg, Wg (experts, width), bg (experts),
//   s = softmax(z) or sigmoid(z),  T = the k experts with the largest s,  y = sum over e in T of w_e expert_e(x),
//   w_e = s_e, or s_e / sum over i in T of s_i with ffn.renormalise
// as in Shazeer et al. (1701.06538) without noise and, with k = 2 and renormalisation, GShard (Lepikhin et al.,
// 2006.16668). By default the balance loss with alpha = 0.01 (gate_losses.hpp), k = 2 and softmax.
#include "routing/gated_router.hpp"

namespace switchyard {

std::unique_ptr<Router> make_top_k_router(const RouterOptions& options, ParameterTable& table) {
  refuse_load_loss(options);
  const LearnedGateOptions gate{
      .top_k = options.top_k,
      .scores = scores_of(options),
      .renormalise = options.renormalise,
      .losses = {or_own(options.balance_loss, 0.01), options.z_loss, or_own(options.importance_loss, 0)}};
  return std::make_unique<GatedRouter>(options, gate, table);
}

}  // namespace switchyard
