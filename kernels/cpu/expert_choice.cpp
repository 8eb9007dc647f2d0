#include <algorithm>
#include <functional>

#include "core/error.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

// An integer that orders as the score does: NaN below all others, the two zeros equal.
inline std::uint32_t order_of(float score) {
  constexpr std::uint32_t kSign = 0x80000000;
  const std::uint32_t bits = bits_of(score + 0.0f);
  const std::uint32_t order = bits & kSign ? ~bits : bits | kSign;
  return score == score ? order : 0;
}

// An expert takes the tokens whose order is above `order`, and of those equal to it the ones before `end_equal`.
struct Cut {
  std::uint32_t order = 0;
  Index end_equal = 0;
};

Cut find_cut(const ExpertChoice& args, Index expert) {
  thread_local Scratch<std::uint32_t> scratch;
  const Index tokens = args.tokens, capacity = args.capacity;
  std::uint32_t* orders = scratch.get(2 * tokens);
  std::uint32_t* partitioned = orders + tokens;
  for (Index t = 0; t < tokens; ++t) orders[t] = partitioned[t] = order_of(args.scores[t * args.num_experts + expert]);
  std::nth_element(partitioned, partitioned + capacity - 1, partitioned + tokens, std::greater<>());
  Cut cut{.order = partitioned[capacity - 1]};
  Index equal_to_take = capacity - std::count_if(orders, orders + tokens, [&](auto o) { return o > cut.order; });
  for (; equal_to_take > 0; ++cut.end_equal) equal_to_take -= orders[cut.end_equal] == cut.order;
  return cut;
}

}  // namespace

void expert_choice(const Context& context, const ExpertChoice& args) {
  const Index num_experts = args.num_experts;
  if (args.capacity < 0 || args.capacity > args.tokens)
    fail("expert_choice: an expert cannot take {} of {} tokens: a router is wrong.", args.capacity, args.tokens);
  thread_local Scratch<Cut> scratch;
  Cut* cuts = scratch.get(num_experts);
  context.threads->parallel_for(num_experts, [&](Index expert) {
    cuts[expert] = args.capacity == 0 ? Cut{.order = ~0u} : find_cut(args, expert);
  });
  for_rows(context, args.tokens, [&](Index token) {
    const Index first = token * num_experts;
    for (Index e = 0; e < num_experts; ++e) {
      const float score = args.scores[first + e];
      const std::uint32_t order = order_of(score);
      const bool takes = order > cuts[e].order || (order == cuts[e].order && token < cuts[e].end_equal);
      args.experts[first + e] = takes ? static_cast<std::int32_t>(e) : -1;
      args.weights[first + e] = takes ? score : 0.0f;
    }
  });
}

}  // namespace switchyard::kernels::cpu
