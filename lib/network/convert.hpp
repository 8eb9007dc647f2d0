// Parameters of a dense model as those of a mixture, and back. Both have the same names but for the feed-forward
// networks, blocks.N.ffn.w1 and blocks.N.experts.w1, and for gates, which a dense model has not.
#pragma once

#include "comm/parameter_store.hpp"

namespace switchyard {

// Every expert becomes the dense network of its block (sparse upcycling: Komatsuzaki et al., 2212.05055) plus
//   noise * (standard deviation of that weight over its elements) * n,  n normal, keyed by seed, name and expert
// and everything else becomes what it is in the dense model. Gates are left as they are.
void upcycle(const Context& context, const ParameterStore& dense, ParameterStore& mixture, double noise,
             std::uint64_t seed);

// Every dense network becomes the mean of its block's experts, in order: the weights, bit for bit, that evaluation with
// ffn.inference = average works with. Collective over the expert group, which is the mixture's.
void average_experts(const Context& context, Communicator& expert_group, const ParameterStore& mixture,
                     ParameterStore& dense);

}  // namespace switchyard
