// Operations that have no CUDA kernel yet: they fail and say so.
#include "core/error.hpp"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

#define SWITCHYARD_MISSING(operation, Arguments) \
  void operation(const Context&, const Arguments&) { fail("{}: there is no CUDA kernel for it yet", #operation); }

SWITCHYARD_MISSING(attention, Attention)
SWITCHYARD_MISSING(attention_backward, AttentionBackward)
SWITCHYARD_MISSING(combine, Combine)
SWITCHYARD_MISSING(combine_backward, CombineBackward)
SWITCHYARD_MISSING(dispatch, Dispatch)
SWITCHYARD_MISSING(dispatch_backward, DispatchBackward)
SWITCHYARD_MISSING(expert_choice, ExpertChoice)
SWITCHYARD_MISSING(gate, Gate)
SWITCHYARD_MISSING(gate_backward, GateBackward)
SWITCHYARD_MISSING(load_probability, LoadProbability)
SWITCHYARD_MISSING(noisy_backward, NoisyBackward)
SWITCHYARD_MISSING(noisy_choice, NoisyChoice)
SWITCHYARD_MISSING(noisy_choice_backward, NoisyChoiceBackward)
SWITCHYARD_MISSING(noisy_logits, NoisyLogits)
SWITCHYARD_MISSING(route_statistics, RouteStatistics)
SWITCHYARD_MISSING(scale_leaves, ScaleLeaves)
SWITCHYARD_MISSING(scale_leaves_backward, ScaleLeavesBackward)
SWITCHYARD_MISSING(sort_by_expert, SortByExpert)
SWITCHYARD_MISSING(tree_descent, TreeDescent)
SWITCHYARD_MISSING(tree_forward, TreeForward)
SWITCHYARD_MISSING(tree_mixture, TreeMixture)
SWITCHYARD_MISSING(tree_mixture_backward, TreeMixtureBackward)

void gemm(const Context&, std::span<const Gemm>) { fail("gemm: there is no CUDA kernel for it yet"); }
Index packed_b_bytes(const Gemm&) { fail("packed_b_bytes: there is no CUDA kernel for it yet"); }
void pack_b(const Context&, const Gemm&, void*) { fail("pack_b: there is no CUDA kernel for it yet"); }
void leaf_forward(const Context&, std::span<const LeafForward>) {
  fail("leaf_forward: there is no CUDA kernel for it yet");
}

}  // namespace switchyard::kernels::cuda
