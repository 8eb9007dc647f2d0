// Gating Dropout (Liu et al., 2205.14336): with probability p a training step's tokens stay home, that is, the gate
// chooses among the experts of their home alone. One draw decides for a step and all its layers. Home is a function of
// the microbatch and of a configured layout of R ranks with expert-parallel size V, not of the ranks at hand:
// microbatch i of M has home h = floor(i R / M) mod V, with the experts [h E / V, (h + 1) E / V). Where the ranks at
// hand are laid out like that, nothing travels in such a step. Capacities are then shares of the home's
// experts, and losses that compare experts (balance, importance, load) are left out: they would push tokens away.
#pragma once

#include "routing/router.hpp"

namespace switchyard {

// Fails where the options contradict each other, or a home has fewer than top_k experts.
void check_gating_dropout(const RouterOptions& options, Index top_k);

struct ExpertRange {
  Index first = 0, end = 0;
};
// Those that the microbatch's tokens may be sent to: all of them but in a step that stays home.
ExpertRange allowed_experts(const RouterOptions& options, const RouteInput& input);

// Whether every rank of an expert group of `ranks` sends its tokens to its own experts alone. `rank` is that of the
// input's microbatch; the others are at the same place among their own, microbatches_per_rank apart.
bool all_stay_home(const RouterOptions& options, const RouteInput& input, Index rank, Index ranks,
                   Index microbatches_per_rank);

}  // namespace switchyard
