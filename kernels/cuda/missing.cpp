// Operations that have no CUDA kernel yet: they fail and say so.
#include "core/error.hpp"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

#define SWITCHYARD_MISSING(operation, Arguments) \
  void operation(const Context&, const Arguments&) { fail("{}: there is no CUDA kernel for it yet", #operation); }

SWITCHYARD_MISSING(adam, Adam)
SWITCHYARD_MISSING(bias_add, BiasAdd)
SWITCHYARD_MISSING(bias_dropout_residual, BiasDropoutResidual)
SWITCHYARD_MISSING(bias_activation_dropout, BiasActivationDropout)
SWITCHYARD_MISSING(bias_activation_dropout_backward, BiasActivationDropoutBackward)
SWITCHYARD_MISSING(column_sum, ColumnSum)
SWITCHYARD_MISSING(combine, Combine)
SWITCHYARD_MISSING(combine_backward, CombineBackward)
SWITCHYARD_MISSING(consistency_loss, ConsistencyLoss)
SWITCHYARD_MISSING(dispatch, Dispatch)
SWITCHYARD_MISSING(dispatch_backward, DispatchBackward)
SWITCHYARD_MISSING(dropout_backward, DropoutBackward)
SWITCHYARD_MISSING(embed_tokens, EmbedTokens)
SWITCHYARD_MISSING(embed_tokens_backward, EmbedTokensBackward)
SWITCHYARD_MISSING(expert_choice, ExpertChoice)
SWITCHYARD_MISSING(gate, Gate)
SWITCHYARD_MISSING(gate_backward, GateBackward)
SWITCHYARD_MISSING(layernorm, LayerNorm)
SWITCHYARD_MISSING(layernorm_backward, LayerNormBackward)
SWITCHYARD_MISSING(load_probability, LoadProbability)
SWITCHYARD_MISSING(noisy_backward, NoisyBackward)
SWITCHYARD_MISSING(noisy_choice, NoisyChoice)
SWITCHYARD_MISSING(noisy_choice_backward, NoisyChoiceBackward)
SWITCHYARD_MISSING(noisy_logits, NoisyLogits)
SWITCHYARD_MISSING(patch_pool, PatchPool)
SWITCHYARD_MISSING(patch_pool_backward, PatchPoolBackward)
SWITCHYARD_MISSING(patch_sum, PatchSum)
SWITCHYARD_MISSING(patch_words, PatchWords)
SWITCHYARD_MISSING(patchify, Patchify)
SWITCHYARD_MISSING(perturb_input, PerturbInput)
SWITCHYARD_MISSING(perturb_input_backward, PerturbInput)
SWITCHYARD_MISSING(route_statistics, RouteStatistics)
SWITCHYARD_MISSING(scale_leaves, ScaleLeaves)
SWITCHYARD_MISSING(scale_leaves_backward, ScaleLeavesBackward)
SWITCHYARD_MISSING(sgd, Sgd)
SWITCHYARD_MISSING(softmax_cross_entropy, SoftmaxCrossEntropy)
SWITCHYARD_MISSING(sort_by_expert, SortByExpert)
SWITCHYARD_MISSING(sum_of_squares, SumOfSquares)
SWITCHYARD_MISSING(tree_descent, TreeDescent)
SWITCHYARD_MISSING(tree_forward, TreeForward)
SWITCHYARD_MISSING(tree_mixture, TreeMixture)
SWITCHYARD_MISSING(tree_mixture_backward, TreeMixtureBackward)

void leaf_forward(const Context&, std::span<const LeafForward>) {
  fail("leaf_forward: there is no CUDA kernel for it yet");
}

}  // namespace switchyard::kernels::cuda
