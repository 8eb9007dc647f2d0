// What learned routers share: z = x' Wg^T + bg with Wg (experts, width) and bg (experts), always in fp32, since a
// choice of experts hangs on small differences: the selective precision of Fedus et al. (2101.03961, section 2.4). x'
// is x, perturbed in training by
//   jitter   times a uniform draw from [1 - epsilon, 1 + epsilon) for each element (Fedus et al., 2101.03961, table 11)
//   dropout  of the gate's input (there, and Zoph et al., 2202.08906)
// and from z the scores, the choices among the allowed experts, slots, auxiliary losses, and the way back.
// Where products are in bf16 and the device takes their operands rounded (a GPU), x comes so, rounded once by the
// LayerNorm that makes it, as the experts read it; logits, their gradient, d_x and Wg's gradient are fp32 from there
// on. A gate that may perturb x, in training or not, and one of more than kernels::kMostExpertsOfRounded experts have
// fp32 x.
#pragma once

#include "kernels/api/gate.hpp"
#include "kernels/api/gate_logits.hpp"
#include "routing/gate_losses.hpp"
#include "routing/router.hpp"

namespace switchyard {

struct LearnedGateOptions {
  Index top_k = 1;
  kernels::Scores scores = kernels::Scores::kSoftmax;
  bool renormalise = false;
  bool has_bias = true;
  bool starts_at_zero = false;  // otherwise uniform over +-gate_init / sqrt(width), as PyTorch's nn.Linear times that
  GateLossWeights losses;
};

class LearnedGate {
 public:
  // Fails for options that no gate can take.
  LearnedGate(const RouterOptions& options, const LearnedGateOptions& gate, ParameterTable& table);

  // As Router has them.
  kernels::Readers readers() const;
  // x' (tokens, width): x itself, or an array of the arena.
  kernels::Operand perturbed(const RouteInput& input);
  // x' W^T for a weight of the table (experts, width), Wg where not said otherwise; from the arena.
  float* logits(const RouteInput& input, const kernels::Operand& perturbed_x) const {
    return logits(input, perturbed_x, weight_);
  }
  float* logits(const RouteInput& input, const kernels::Operand& perturbed_x, ParameterId weight) const;

  // Scores of the logits, which are overwritten, and each token's choices, as experts and weights of a plan that has no
  // slots yet. selection_bias: (experts) or null.
  RoutePlan score(const RouteInput& input, float* logits, const float* selection_bias = nullptr);
  // The plan of a router that lets tokens choose, with its losses. load_probability: (tokens, experts) or null.
  RoutePlan choose(const RouteInput& input, float* logits, AuxiliaryLosses* losses,
                   const float* selection_bias = nullptr, const float* load_probability = nullptr);
  // As the routers' own, and measures the losses.
  void fill_slots(const RouteInput& input, const Capacity& capacity, RoutePlan& plan, AuxiliaryLosses* losses,
                  const float* load_probability = nullptr);

  // d_logits (tokens, experts) from the arena, by way of the weights and of the auxiliary losses but the load loss.
  float* choice_backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights,
                         double auxiliary_scale) const;
  // From d_logits to the gradients of Wg and bg, and of x, which is written, where d_x is not null.
  void backward(const RouteInput& input, const float* d_logits, float* d_x, GradientSums& gradients) const {
    backward(input, d_logits, {}, d_x, gradients);
  }
  // Where x' went through another weight of the table, too: `other` of its logits.
  struct LogitsGradient {
    const float* d_logits = nullptr;  // (tokens, experts); null: none
    ParameterId weight = -1;
  };
  void backward(const RouteInput& input, const float* d_logits, const LogitsGradient& other, float* d_x,
                GradientSums& gradients) const;

  const GateLosses& losses() const { return losses_; }

 private:
  kernels::PerturbInput perturbation(const RouteInput& input) const;
  bool perturbs(const RouteInput& input) const;
  bool can_perturb() const;
  // The weight's gradient, and d_x = d_logits W, `adds`: added to what is there.
  void backward_through(const RouteInput& input, const LogitsGradient& logits, float* d_x, bool adds,
                        GradientSums& gradients) const;

  RouterOptions options_;
  LearnedGateOptions gate_;
  GateLosses losses_;
  ParameterId weight_ = -1, bias_ = -1;

  // Of the microbatch at hand, in the arena:
  kernels::Operand x_;              // (tokens, width): x'
  float* scores_ = nullptr;         // (tokens, experts)
  float* probabilities_ = nullptr;  // (tokens, experts)
  float* log_sum_exp_ = nullptr;    // (tokens), where the z-loss counts
};

// The scores that ffn.scores names.
kernels::Scores scores_of(const RouterOptions& options);

}  // namespace switchyard
