// Top-k routing: for a token x of the microbatch, with z = x Wg^T + bg, Wg (experts, width), bg (experts),
//   s = softmax(z) or sigmoid(z),  T = the k experts with the largest s,  y = sum over e in T of w_e expert_e(x),
//   w_e = s_e, or s_e / sum over i in T of s_i with ffn.renormalise
// as in Shazeer et al. (1701.06538) without noise and, with k = 2 and renormalisation, GShard (Lepikhin et al.,
// 2006.16668). By default k = 2, softmax, and the balance loss with alpha = 0.01 (gate_losses.hpp), which counts all k
// choices of a token, over N k, as Megatron-LM does; GShard's counts first choices alone.
// An expert's capacity has room for first choices of all the microbatch's tokens before any second one, and so on, the
// choices of one rank by token (ffn.capacity_order = choice; GShard, algorithm 1), or for all choices of a token before
// the next token's (token). A dropped choice adds nothing; the weights of the others stay as they are.
#include "routing/gated_router.hpp"

namespace switchyard {

std::unique_ptr<Router> make_top_k_router(const RouterOptions& options, ParameterTable& table) {
  refuse_load_loss(options);
  refuse_noise_floor(options);
  const LearnedGateOptions gate{
      .top_k = options.top_k,
      .scores = scores_of(options),
      .renormalise = options.renormalise,
      .losses = {or_own(options.balance_loss, 0.01), options.z_loss, or_own(options.importance_loss, 0)}};
  return std::make_unique<GatedRouter>(options, gate, table);
}

}  // namespace switchyard
