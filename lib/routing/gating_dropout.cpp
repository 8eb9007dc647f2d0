#include "routing/gating_dropout.hpp"

#include "core/error.hpp"
#include "core/random.hpp"

namespace switchyard {

namespace {

bool stays_home(const RouterOptions& options, const RouteInput& input) {
  if (options.gating_dropout == 0 || !input.training) return false;
  const RandomKey key{input.seed, Purpose::kGatingDropout, 0, static_cast<std::uint32_t>(input.step)};
  return double{to_unit_float(random_words(key, 0, 0)[0])} < options.gating_dropout;
}

ExpertRange home_experts(const RouterOptions& options, Index microbatch, Index num_microbatches) {
  const Index home = microbatch * options.home_ranks / num_microbatches % options.home_experts;
  const Index experts = options.num_experts / options.home_experts;
  return {home * experts, (home + 1) * experts};
}

}  // namespace

void check_gating_dropout(const RouterOptions& options, Index top_k) {
  if (options.gating_dropout == 0) return;
  if (options.home_experts < 2)
    fail_usage(
        "ffn.gating_dropout = {}: with ffn.home_experts = {} every expert is at home and nothing would change: set "
        "ffn.home_ranks and ffn.home_experts to the ranks and the parallel.experts that you mean to train with.",
        options.gating_dropout, options.home_experts);
  if (options.num_experts % options.home_experts != 0 || options.home_ranks % options.home_experts != 0)
    fail_usage("ffn.home_experts = {} must divide ffn.experts = {} and ffn.home_ranks = {}: take a divisor of both.",
               options.home_experts, options.num_experts, options.home_ranks);
  if (options.num_experts / options.home_experts < top_k)
    fail_usage(
        "ffn.home_experts = {} leaves {} of {} experts at each home, fewer than the {} that a token visits: lower it "
        "or ffn.top_k.",
        options.home_experts, options.num_experts / options.home_experts, options.num_experts, top_k);
}

ExpertRange allowed_experts(const RouterOptions& options, const RouteInput& input) {
  if (!stays_home(options, input)) return {0, options.num_experts};
  return home_experts(options, input.microbatch, input.num_microbatches);
}

bool all_stay_home(const RouterOptions& options, const RouteInput& input, Index rank, Index ranks,
                   Index microbatches_per_rank) {
  if (!stays_home(options, input)) return false;
  const Index local = options.num_experts / ranks;
  for (Index peer = 0; peer < ranks; ++peer) {
    const Index microbatch = input.microbatch + (peer - rank) * microbatches_per_rank;
    const ExpertRange home = home_experts(options, microbatch, input.num_microbatches);
    if (home.first < peer * local || home.end > (peer + 1) * local) return false;
  }
  return true;
}

}  // namespace switchyard
