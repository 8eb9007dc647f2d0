// The auxiliary losses of learned routers, each of one layer and microbatch, over its own tokens. With N tokens, k
// choices each, E experts, c_e tokens that e was chosen for, probabilities p, weights w:
//   balance     alpha E sum_e f_e P_e,  f_e = c_e / (N k) (no gradient),  P_e = mean over tokens of p_e
//               (Fedus et al., 2101.03961; perfectly even: alpha). All k choices count alike, as in Megatron-LM; GShard
//               (Lepikhin et al., 2006.16668) counts first choices alone, over N
//   z           alpha mean over tokens of logsumexp(z)^2  (Zoph et al., 2202.08906)
//   importance  alpha CV(I)^2,  I_e = sum of the weights of e's assignments  (Shazeer et al., 1701.06538)
//   load        alpha CV(L)^2,  L_e = sum over tokens of the probability that noise would choose e  (there, appendix A)
// CV^2 is the population variance over the squared mean.
#pragma once

#include <vector>

#include "kernels/api/gate.hpp"
#include "routing/router.hpp"

namespace switchyard {

struct GateLossWeights {
  double balance = 0, z = 0, importance = 0, load = 0;
};

// (standard deviation / mean)^2 of the values; 0 where the mean is 0. gradient, where not null, has their size.
double cv_squared(std::span<const float> values, std::vector<float>* gradient);

class GateLosses {
 public:
  GateLosses(const GateLossWeights& weights, Index num_experts);

  struct Measures {
    const float* probabilities = nullptr;     // (tokens, experts)
    const float* log_sum_exp = nullptr;       // (tokens); where the z-loss counts
    const float* load_probability = nullptr;  // (tokens, experts); where the load loss counts
    bool all_allowed = true;                  // tokens might go to any expert; otherwise no loss compares experts
  };
  // Gives the sums that losses are made of to the stream, before slots are filled; the copies that it returns bring
  // them to the host. In training; an empty microbatch has no losses.
  std::vector<kernels::HostCopy> sum(const RouteInput& input, const RoutePlan& plan, const Measures& measures);
  // Once they are there, with the plan's counts.
  void measure(const RoutePlan& plan, AuxiliaryLosses* losses);

  // Of what measure() saw last, the losses counting auxiliary_scale each. Arrays of the arena.
  void add_gradients(const RouteInput& input, double auxiliary_scale, kernels::GateBackward& backward) const;
  const float* load_gradient(const RouteInput& input, double auxiliary_scale) const;  // (experts); null: no load loss

  const GateLossWeights& weights() const { return weights_; }

 private:
  // Of each expert, by column_sum(); for the host.
  kernels::HostCopy column_sums(const RouteInput& input, Index rows, const float* x, std::vector<float>& host) const;
  static const float* upload(const RouteInput& input, const std::vector<float>& gradient, double scale);

  GateLossWeights weights_;
  Index num_experts_;
  // Of the microbatch at hand; empty, or 0, where the loss does not count:
  std::vector<float> probabilities_, importance_, load_;  // (experts)
  double squares_ = 0;                                    // of log_sum_exp
  // Of each expert, scaled by the loss's weight; empty where the loss does not count.
  std::vector<float> d_probability_, d_importance_, d_load_;
};

}  // namespace switchyard
