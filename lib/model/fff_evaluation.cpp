// Evaluation: every token visits one leaf.
#include "kernels/api/routing.hpp"
#include "model/fff_ffn.hpp"

namespace switchyard {

float* FffFfn::forward_one_leaf(const Pass& pass) const {
  if (pass.expert_group.size() == 1) return forward_at_home(pass);
  const RoutePlan plan = descend(pass);
  Exchange exchange(pass.context, pass.expert_group, plan, pass.seconds);
  float* sorted = pass.arena.take<float>(exchange.num_slots() * options_.width);
  kernels::dispatch(pass.context, {.num_slots = exchange.num_slots(),
                                   .cols = options_.width,
                                   .rows = input_.x.values,
                                   .assignment_of_slot = plan.assignment_of_slot,
                                   .slots = sorted,
                                   .slot_ids = pass.arena.take<std::int32_t>(exchange.num_slots())});
  const float* received = exchange.to_experts(pass.arena, sorted, options_.width);
  float* visited = visit_leaves(pass, exchange.segments(), exchange.num_received(), received);
  const float* slots = exchange.to_tokens(pass.arena, visited, options_.out);
  float* y = pass.arena.take<float>(input_.rows() * options_.out);
  kernels::combine(pass.context, {.tokens = plan.tokens,
                                  .cols = options_.out,
                                  .slots = slots,
                                  .slot_of_assignment = plan.slot_of_assignment,
                                  .residual = input_.residual,
                                  .y = y});
  return y;
}

// All leaves are this rank's own: nothing travels.
float* FffFfn::forward_at_home(const Pass& pass) const {
  const ParameterStore& p = pass.parameters;
  float* y = pass.arena.take<float>(input_.rows() * options_.out);
  kernels::tree_forward(pass.context, {.rows = input_.rows(),
                                       .width = options_.width,
                                       .depth = options_.tree.depth,
                                       .leaf_width = options_.tree.leaf,
                                       .out = options_.out,
                                       .x = input_.x.values,
                                       .weight = p.value(node_.weight),
                                       .bias = p.value(node_.bias),
                                       .w1 = p.value(weights_.id(kW1)),
                                       .b1 = p.value(weights_.id(kB1)),
                                       .w2 = p.value(weights_.id(kW2)),
                                       .b2 = p.value(weights_.id(kB2)),
                                       .residual = input_.residual,
                                       .y = y});
  return y;
}

RoutePlan FffFfn::descend(const Pass& pass) const {
  RoutePlan plan;
  plan.tokens = input_.rows();
  plan.num_experts = leaves_;
  plan.experts = pass.arena.take<std::int32_t>(plan.tokens);
  kernels::tree_descent(pass.context, {.rows = plan.tokens,
                                       .width = options_.width,
                                       .depth = options_.tree.depth,
                                       .x = input_.x.values,
                                       .weight = pass.parameters.value(node_.weight),
                                       .bias = pass.parameters.value(node_.bias),
                                       .leaf = plan.experts});
  fill_slots({.context = pass.context, .arena = pass.arena, .parameters = pass.parameters}, {}, plan);
  return plan;
}

float* FffFfn::visit_leaves(const Pass& pass, const std::vector<Segment>& segments, Index rows, const float* x) const {
  float* y = pass.arena.take<float>(rows * options_.out);
  std::vector<kernels::LeafForward> visits;
  for (const Segment& s : segments)
    visits.push_back({.rows = s.rows,
                      .width = options_.width,
                      .leaf_width = options_.tree.leaf,
                      .out = options_.out,
                      .x = x + s.first_row * options_.width,
                      .w1 = pass.parameters.value(weights_.id(kW1), s.local_expert),
                      .b1 = pass.parameters.value(weights_.id(kB1), s.local_expert),
                      .w2 = pass.parameters.value(weights_.id(kW2), s.local_expert),
                      .b2 = pass.parameters.value(weights_.id(kB2), s.local_expert),
                      .y = y + s.first_row * options_.out});
  kernels::leaf_forward(pass.context, visits);
  return y;
}

}  // namespace switchyard
