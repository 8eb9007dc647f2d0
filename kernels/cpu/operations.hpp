// The operations of kernels/api as the CPU does them; their equations and shapes stand there.
#pragma once

#include <span>

#include "kernels/api/attention.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/embedding.hpp"
#include "kernels/api/gate.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/layernorm.hpp"
#include "kernels/api/loss.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/api/optimizer.hpp"
#include "kernels/api/patch_conv.hpp"
#include "kernels/api/reduce.hpp"
#include "kernels/api/routing.hpp"
#include "kernels/api/tree.hpp"

namespace switchyard::kernels::cpu {

void* allocate(Index bytes);
void release(void* pointer);
void fill_zero(void* pointer, Index bytes);
void copy(void* to, const void* from, Index bytes);

void gemm(const Context& context, std::span<const Gemm> products);
Index packed_b_bytes(const Gemm& product);
void pack_b(const Context& context, const Gemm& product, void* packed_b);

void attention(const Context& context, const Attention& args);
void attention_backward(const Context& context, const AttentionBackward& args);

void bias_activation_dropout(const Context& context, const BiasActivationDropout& args);
void bias_activation_dropout_backward(const Context& context, const BiasActivationDropoutBackward& args);
void bias_dropout_residual(const Context& context, const BiasDropoutResidual& args);
void dropout_backward(const Context& context, const DropoutBackward& args);
void bias_add(const Context& context, const BiasAdd& args);
void column_sum(const Context& context, const ColumnSum& args);

void patchify(const Context& context, const Patchify& args);
void patch_words(const Context& context, const PatchWords& args);
void embed_tokens(const Context& context, const EmbedTokens& args);
void embed_tokens_backward(const Context& context, const EmbedTokensBackward& args);

void patch_pool(const Context& context, const PatchPool& args);
void patch_pool_backward(const Context& context, const PatchPoolBackward& args);
void patch_sum(const Context& context, const PatchSum& args);

void perturb_input(const Context& context, const PerturbInput& args);
void perturb_input_backward(const Context& context, const PerturbInput& args);
void gate(const Context& context, const Gate& args);
void gate_backward(const Context& context, const GateBackward& args);
void noisy_logits(const Context& context, const NoisyLogits& args);
void load_probability(const Context& context, const LoadProbability& args);
void noisy_backward(const Context& context, const NoisyBackward& args);
void noisy_choice(const Context& context, const NoisyChoice& args);
void noisy_choice_backward(const Context& context, const NoisyChoiceBackward& args);
void expert_choice(const Context& context, const ExpertChoice& args);
void route_statistics(const Context& context, const RouteStatistics& args);

void layernorm(const Context& context, const LayerNorm& args);
void layernorm_backward(const Context& context, const LayerNormBackward& args);

void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& args);
void consistency_loss(const Context& context, const ConsistencyLoss& args);

void adam(const Context& context, const Adam& args);
void sgd(const Context& context, const Sgd& args);
void sum_of_squares(const Context& context, const SumOfSquares& args);

void tree_carry(const Context& context, const TreeCarry& args);
void mean(const Context& context, const Mean& args);
Index count_not_finite(const float* x, Index size);

void sort_by_expert(const Context& context, const SortByExpert& args);
void dispatch(const Context& context, const Dispatch& args);
void dispatch_backward(const Context& context, const DispatchBackward& args);
void combine(const Context& context, const Combine& args);
void combine_backward(const Context& context, const CombineBackward& args);

void tree_mixture(const Context& context, const TreeMixture& args);
void tree_mixture_backward(const Context& context, const TreeMixtureBackward& args);
void scale_leaves(const Context& context, const ScaleLeaves& args);
void scale_leaves_backward(const Context& context, const ScaleLeavesBackward& args);
void tree_descent(const Context& context, const TreeDescent& args);
void leaf_forward(const Context& context, std::span<const LeafForward> leaves);
void tree_forward(const Context& context, const TreeForward& args);

}  // namespace switchyard::kernels::cpu
