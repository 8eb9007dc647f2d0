// The one switch on the device: kernels::f(context, args) calls kernels::cpu::f(context, args).
#include "core/error.hpp"
#include "kernels/cpu/operations.hpp"

namespace switchyard::kernels {

namespace {

void require_cpu(Device device, const char* operation) {
  if (device != Device::kCpu)
    fail(
        "{}: this program was built without CUDA kernels; set compute.device = cpu, or build with "
        "-DSWITCHYARD_CUDA=ON.",
        operation);
}

}  // namespace

#define SWITCHYARD_DISPATCH(operation, Arguments)                 \
  void operation(const Context& context, const Arguments& args) { \
    require_cpu(context.device, #operation);                      \
    const ProfiledKernel profiled(context.profile, #operation);   \
    cpu::operation(context, args);                                \
  }

SWITCHYARD_DISPATCH(adam, Adam)
SWITCHYARD_DISPATCH(attention, Attention)
SWITCHYARD_DISPATCH(attention_backward, AttentionBackward)
SWITCHYARD_DISPATCH(bias_add, BiasAdd)
SWITCHYARD_DISPATCH(bias_dropout_residual, BiasDropoutResidual)
SWITCHYARD_DISPATCH(bias_activation_dropout, BiasActivationDropout)
SWITCHYARD_DISPATCH(bias_activation_dropout_backward, BiasActivationDropoutBackward)
SWITCHYARD_DISPATCH(column_sum, ColumnSum)
SWITCHYARD_DISPATCH(combine, Combine)
SWITCHYARD_DISPATCH(combine_backward, CombineBackward)
SWITCHYARD_DISPATCH(consistency_loss, ConsistencyLoss)
SWITCHYARD_DISPATCH(dispatch, Dispatch)
SWITCHYARD_DISPATCH(dispatch_backward, DispatchBackward)
SWITCHYARD_DISPATCH(dropout_backward, DropoutBackward)
SWITCHYARD_DISPATCH(embed_tokens, EmbedTokens)
SWITCHYARD_DISPATCH(embed_tokens_backward, EmbedTokensBackward)
SWITCHYARD_DISPATCH(expert_choice, ExpertChoice)
SWITCHYARD_DISPATCH(gate, Gate)
SWITCHYARD_DISPATCH(gate_backward, GateBackward)
SWITCHYARD_DISPATCH(layernorm, LayerNorm)
SWITCHYARD_DISPATCH(layernorm_backward, LayerNormBackward)
SWITCHYARD_DISPATCH(load_probability, LoadProbability)
SWITCHYARD_DISPATCH(mean, Mean)
SWITCHYARD_DISPATCH(noisy_backward, NoisyBackward)
SWITCHYARD_DISPATCH(noisy_choice, NoisyChoice)
SWITCHYARD_DISPATCH(noisy_choice_backward, NoisyChoiceBackward)
SWITCHYARD_DISPATCH(noisy_logits, NoisyLogits)
SWITCHYARD_DISPATCH(patch_pool, PatchPool)
SWITCHYARD_DISPATCH(patch_pool_backward, PatchPoolBackward)
SWITCHYARD_DISPATCH(patch_sum, PatchSum)
SWITCHYARD_DISPATCH(patch_words, PatchWords)
SWITCHYARD_DISPATCH(patchify, Patchify)
SWITCHYARD_DISPATCH(perturb_input, PerturbInput)
SWITCHYARD_DISPATCH(perturb_input_backward, PerturbInput)
SWITCHYARD_DISPATCH(route_statistics, RouteStatistics)
SWITCHYARD_DISPATCH(scale_leaves, ScaleLeaves)
SWITCHYARD_DISPATCH(scale_leaves_backward, ScaleLeavesBackward)
SWITCHYARD_DISPATCH(sgd, Sgd)
SWITCHYARD_DISPATCH(softmax_cross_entropy, SoftmaxCrossEntropy)
SWITCHYARD_DISPATCH(sort_by_expert, SortByExpert)
SWITCHYARD_DISPATCH(sum_of_squares, SumOfSquares)
SWITCHYARD_DISPATCH(tree_carry, TreeCarry)
SWITCHYARD_DISPATCH(tree_descent, TreeDescent)
SWITCHYARD_DISPATCH(tree_forward, TreeForward)
SWITCHYARD_DISPATCH(tree_mixture, TreeMixture)
SWITCHYARD_DISPATCH(tree_mixture_backward, TreeMixtureBackward)

#undef SWITCHYARD_DISPATCH

void gemm(const Context& context, std::span<const Gemm> products) {
  require_cpu(context.device, "gemm");
  const ProfiledKernel profiled(context.profile, "gemm");
  cpu::gemm(context, products);
}

void leaf_forward(const Context& context, std::span<const LeafForward> leaves) {
  require_cpu(context.device, "leaf_forward");
  const ProfiledKernel profiled(context.profile, "leaf_forward");
  cpu::leaf_forward(context, leaves);
}

Index packed_b_bytes(const Context& context, const Gemm& product) {
  require_cpu(context.device, "packed_b_bytes");
  return cpu::packed_b_bytes(product);
}

void pack_b(const Context& context, const Gemm& product, void* packed_b) {
  require_cpu(context.device, "pack_b");
  const ProfiledKernel profiled(context.profile, "pack_b");
  cpu::pack_b(context, product, packed_b);
}

Index count_not_finite(const Context& context, const float* x, Index size) {
  require_cpu(context.device, "count_not_finite");
  return cpu::count_not_finite(x, size);
}

void* allocate(Device device, Index bytes) {
  require_cpu(device, "allocate");
  return cpu::allocate(bytes);
}

void release(Device, void* pointer) { cpu::release(pointer); }

void fill_zero(const Context& context, void* pointer, Index bytes) {
  require_cpu(context.device, "fill_zero");
  const ProfiledKernel profiled(context.profile, "fill_zero");
  cpu::fill_zero(pointer, bytes);
}

void copy(const Context& context, void* to, const void* from, Index bytes) {
  require_cpu(context.device, "copy");
  const ProfiledKernel profiled(context.profile, "copy");
  cpu::copy(to, from, bytes);
}

void copy_to_device(const Context& context, void* to, const void* from, Index bytes) { copy(context, to, from, bytes); }
void copy_to_host(const Context& context, void* to, const void* from, Index bytes) { copy(context, to, from, bytes); }

}  // namespace switchyard::kernels
