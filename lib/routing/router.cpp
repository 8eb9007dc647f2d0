#include "routing/router.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/router_names.hpp"
#include "kernels/api/routing.hpp"

namespace switchyard {

namespace {

constexpr RouterRow kRouters[] = {
    {"switch", "a learned gate sends each token to one expert (Switch Transformer)", true, make_switch_router},
    {"top_k", "a learned gate sends each token to its ffn.top_k best experts", true, make_top_k_router},
    {"noisy_top_k", "top-k of a gate with learned noise, importance and load losses (Shazeer et al.)", true,
     make_noisy_top_k_router},
    {"loss_free", "top-k balanced by a bias on the choice instead of a loss (DeepSeek)", true, make_loss_free_router},
    {"expert_choice", "each expert takes its best tokens of the microbatch (Zhou et al.)", true,
     make_expert_choice_router},
    {"patch_sum", "raw noisy logits of a row of patches choose one expert (Chen et al.)", true, make_patch_sum_router},
    {"random", "no gate: experts are drawn, per ffn.granularity and ffn.draw", false, make_random_router},
    {"hash", "no gate: a fixed hash of ffn.hash chooses the expert (Hash Layers)", false, make_hash_router},
};

}  // namespace

static_assert(std::equal(std::begin(kRouters), std::end(kRouters), kRouterNames.begin(), kRouterNames.end(),
                         [](const RouterRow& row, std::string_view name) { return row.name == name; }),
              "core/router_names.hpp names the rows of this table, in their order");

std::span<const RouterRow> router_table() { return kRouters; }

const RouterRow& router_row(const std::string& name) {
  std::string names;
  for (const RouterRow& row : kRouters) {
    if (name == row.name) return row;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  fail_usage("ffn.router: there is no router \"{}\"; there are {}", name, names);
}

std::unique_ptr<Router> make_router(const RouterOptions& options, ParameterTable& table) {
  return router_row(options.name).make(options, table);
}

double or_own(double value, double own) { return value == RouterOptions::kOwnDefault ? own : value; }

double choices_per_token(const RouterOptions& options, bool training) {
  const bool has_own = !training && options.capacity_eval > 0;
  const double factor = has_own ? options.capacity_eval : options.capacity_train;
  return factor > 0 ? factor : std::min(2.0, static_cast<double>(options.num_experts));
}

Index experts_per_token(const RouterOptions& options) {
  if (options.name == "expert_choice") return static_cast<Index>(std::ceil(choices_per_token(options, true)));
  return takes_top_k(options.name) ? options.top_k : 1;
}

Index assignments_per_token(const RouterOptions& options, Index num_experts) {
  return options.name == "expert_choice" ? num_experts : experts_per_token(options);
}

Capacity expert_capacity(const RouterOptions& options, const RouteInput& input, Index top_k, Index num_experts) {
  const double factor = input.training ? options.capacity_train : options.capacity_eval;
  if (factor == 0) return {};
  const double assignments = static_cast<double>(input.tokens() * top_k);
  const double limit = std::ceil(factor * (assignments / static_cast<double>(num_experts)));
  if (limit >= std::max(1.0, assignments)) return {};
  return {std::max<Index>(1, static_cast<Index>(limit)), options.capacity_order == "choice"};
}

void refuse_load_loss(const RouterOptions& options) {
  if (options.load_loss > 0)
    fail_usage("ffn.load_loss = {}: only noisy_top_k has a smooth load: set it to 0, or ffn.router = noisy_top_k.",
               options.load_loss);
}

void refuse_sigmoid(const RouterOptions& options) {
  if (options.scores != "softmax")
    fail_usage("ffn.scores = {}: ffn.router = {} has softmax scores; top_k and loss_free take others.", options.scores,
               options.name);
}

void refuse_renormalise(const RouterOptions& options) {
  if (options.renormalise)
    fail_usage("ffn.renormalise = true: ffn.router = {} does not choose by it: leave it at false.", options.name);
}

void refuse_capacity_order(const RouterOptions& options) {
  if (options.capacity_order != "choice")
    fail_usage(
        "ffn.capacity_order = {}: ffn.router = {} has no second choices of a token: leave it at choice; top_k, "
        "noisy_top_k and loss_free have.",
        options.capacity_order, options.name);
}

void refuse_noise_floor(const RouterOptions& options) {
  if (options.noise_floor != RouterOptions().noise_floor)
    fail_usage("ffn.noise_floor = {}: ffn.router = {} has no such noise: leave it at {}, or ffn.router = noisy_top_k.",
               options.noise_floor, options.name, RouterOptions().noise_floor);
}

void refuse_gate(const RouterOptions& options) {
  const auto refuse = [&](const char* key, double value) {
    if (value != 0) fail_usage("{} = {}: ffn.router = {} has no gate: set it to 0.", key, value, options.name);
  };
  refuse_sigmoid(options);
  refuse_renormalise(options);
  refuse_capacity_order(options);
  refuse_noise_floor(options);
  if (options.gate_init != 1)
    fail_usage("ffn.gate_init = {}: ffn.router = {} has no gate: leave it at 1.", options.gate_init, options.name);
  refuse("ffn.gate_tilt", options.gate_tilt);
  refuse("ffn.balance_loss", or_own(options.balance_loss, 0));
  refuse("ffn.z_loss", options.z_loss);
  refuse("ffn.importance_loss", or_own(options.importance_loss, 0));
  refuse("ffn.load_loss", or_own(options.load_loss, 0));
  refuse("ffn.gate_jitter", options.gate_jitter);
  refuse("ffn.gate_dropout", options.gate_dropout);
  refuse("ffn.gating_dropout", options.gating_dropout);
}

void give_experts(const RouteInput& input, const std::vector<std::int32_t>& experts, RoutePlan& plan) {
  plan.experts = input.arena.take<std::int32_t>(std::ssize(experts));
  kernels::copy_to_device(input.context, plan.experts, experts.data(), std::ssize(experts) * 4);
  plan.chosen.assign(static_cast<std::size_t>(plan.num_experts), 0);
  for (const std::int32_t expert : experts) ++plan.chosen[static_cast<std::size_t>(expert)];
}

void fill_slots(const RouteInput& input, const Capacity& capacity, RoutePlan& plan,
                std::vector<kernels::HostCopy> wanted) {
  const Index assignments = plan.tokens * plan.top_k, experts = plan.num_experts;
  plan.assignment_of_slot = input.arena.take<std::int32_t>(assignments);
  plan.slot_of_assignment = input.arena.take<std::int32_t>(assignments);
  kernels::SortByExpert sort;
  sort.assignments = assignments;
  sort.num_experts = experts;
  sort.capacity = capacity.limit;
  sort.top_k = capacity.by_choice ? plan.top_k : 1;
  sort.experts = plan.experts;
  sort.tokens_per_expert = input.arena.take<std::int32_t>(2 * experts);
  sort.dropped_per_expert = sort.tokens_per_expert + experts;
  sort.assignment_of_slot = plan.assignment_of_slot;
  sort.slot_of_assignment = plan.slot_of_assignment;
  kernels::sort_by_expert(input.context, sort);

  const bool knows_counts = !plan.chosen.empty();
  std::vector<std::int32_t> dropped(static_cast<std::size_t>(experts));
  plan.tokens_per_expert.resize(dropped.size());
  if (!knows_counts) {
    wanted.push_back({plan.tokens_per_expert.data(), sort.tokens_per_expert, experts * 4});
    wanted.push_back({dropped.data(), sort.dropped_per_expert, experts * 4});
  }
  kernels::copy_to_host(input.context, wanted);
  if (knows_counts) {
    plan.tokens_per_expert = plan.chosen;
    if (capacity.limit > 0)
      for (std::int32_t& tokens : plan.tokens_per_expert)
        tokens = static_cast<std::int32_t>(std::min<Index>(tokens, capacity.limit));
    return;
  }
  plan.chosen.resize(dropped.size());
  std::transform(plan.tokens_per_expert.begin(), plan.tokens_per_expert.end(), dropped.begin(), plan.chosen.begin(),
                 std::plus<>());
}

}  // namespace switchyard
