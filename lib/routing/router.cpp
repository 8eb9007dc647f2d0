#include "routing/router.hpp"

#include "core/error.hpp"
#include "kernels/api/routing.hpp"

namespace switchyard {

namespace {

struct RouterRow {
  const char* name;
  std::unique_ptr<Router> (*make)(const RouterOptions&, ParameterTable&);
};

constexpr RouterRow kRouters[] = {
    {"switch", make_switch_router},
    {"random", make_random_router},
};

}  // namespace

std::unique_ptr<Router> make_router(const RouterOptions& options, ParameterTable& table) {
  std::string names;
  for (const RouterRow& row : kRouters) {
    if (options.name == row.name) return row.make(options, table);
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  fail_usage("ffn.router: there is no router \"{}\"; there are {}", options.name, names);
}

void fill_slots(const RouteInput& input, RoutePlan& plan) {
  const Index assignments = plan.tokens * plan.top_k;
  plan.device_counts = input.arena.take<std::int32_t>(plan.num_experts);
  plan.assignment_of_slot = input.arena.take<std::int32_t>(assignments);
  plan.slot_of_assignment = input.arena.take<std::int32_t>(assignments);
  kernels::SortByExpert sort;
  sort.assignments = assignments;
  sort.num_experts = plan.num_experts;
  sort.experts = plan.experts;
  sort.tokens_per_expert = plan.device_counts;
  sort.assignment_of_slot = plan.assignment_of_slot;
  sort.slot_of_assignment = plan.slot_of_assignment;
  kernels::sort_by_expert(input.context, sort);
}

}  // namespace switchyard
