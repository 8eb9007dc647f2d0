// Operations that have no CUDA kernel yet: they fail and say so.
#include "core/error.hpp"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

#define SWITCHYARD_MISSING(operation, Arguments) \
  void operation(const Context&, const Arguments&) { fail("{}: there is no CUDA kernel for it yet", #operation); }

SWITCHYARD_MISSING(adam, Adam)
SWITCHYARD_MISSING(attention, Attention)
SWITCHYARD_MISSING(attention_backward, AttentionBackward)
SWITCHYARD_MISSING(bias_add, BiasAdd)
SWITCHYARD_MISSING(bias_dropout_residual, BiasDropoutResidual)
SWITCHYARD_MISSING(bias_activation_dropout, BiasActivationDropout)
SWITCHYARD_MISSING(bias_activation_dropout_backward, BiasActivationDropoutBackward)
SWITCHYARD_MISSING(column_sum, ColumnSum)
SWITCHYARD_MISSING(consistency_loss, ConsistencyLoss)
SWITCHYARD_MISSING(dropout_backward, DropoutBackward)
SWITCHYARD_MISSING(embed_tokens, EmbedTokens)
SWITCHYARD_MISSING(embed_tokens_backward, EmbedTokensBackward)
SWITCHYARD_MISSING(layernorm, LayerNorm)
SWITCHYARD_MISSING(layernorm_backward, LayerNormBackward)
SWITCHYARD_MISSING(patch_pool, PatchPool)
SWITCHYARD_MISSING(patch_pool_backward, PatchPoolBackward)
SWITCHYARD_MISSING(patch_sum, PatchSum)
SWITCHYARD_MISSING(patch_words, PatchWords)
SWITCHYARD_MISSING(patchify, Patchify)
SWITCHYARD_MISSING(perturb_input, PerturbInput)
SWITCHYARD_MISSING(perturb_input_backward, PerturbInput)
SWITCHYARD_MISSING(sgd, Sgd)
SWITCHYARD_MISSING(softmax_cross_entropy, SoftmaxCrossEntropy)
SWITCHYARD_MISSING(sum_of_squares, SumOfSquares)

void gemm(const Context&, std::span<const Gemm>) { fail("gemm: there is no CUDA kernel for it yet"); }
Index packed_b_bytes(const Gemm&) { fail("packed_b_bytes: there is no CUDA kernel for it yet"); }
void pack_b(const Context&, const Gemm&, void*) { fail("pack_b: there is no CUDA kernel for it yet"); }

}  // namespace switchyard::kernels::cuda
