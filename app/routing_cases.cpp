// Kernels of routers, of the exchange and of evaluation with the mean of the experts.
#include "app/case_list.hpp"
#include "kernels/api/gate.hpp"
#include "kernels/api/reduce.hpp"
#include "kernels/api/routing.hpp"

namespace switchyard {

namespace {

// A router's plan that deals tokens to experts in turn: token t is the (t / experts)-th of expert t % experts.
struct DealtTokens {
  std::vector<std::int32_t> experts, tokens_per_expert, assignment_of_slot, slot_of_assignment;

  DealtTokens(Index tokens, Index num_experts)
      : experts(numbers(tokens, [=](Index t) { return t % num_experts; })),
        tokens_per_expert(numbers(num_experts, [=](Index e) { return ceil_div(tokens - e, num_experts); })),
        slot_of_assignment(static_cast<std::size_t>(tokens)) {
    for (Index expert = 0; expert < num_experts; ++expert)
      for (Index token = expert; token < tokens; token += num_experts) {
        slot_of_assignment[static_cast<std::size_t>(token)] = static_cast<std::int32_t>(assignment_of_slot.size());
        assignment_of_slot.push_back(static_cast<std::int32_t>(token));
      }
  }
};

void add_routers(CaseList& cases) {
  const Index tokens = cases.tokens, experts = cases.config.ffn.experts;
  const DealtTokens dealt(tokens, experts);
  const std::string shape = by({tokens, experts});
  cases.add(kernels::gate, "gate", shape, [=](Operands& o) -> kernels::Gate {
    float* logits = o.update(tokens * experts);
    return {.tokens = tokens,
            .num_experts = experts,
            .end_expert = experts,
            .logits = logits,
            .bias = o.read(experts),
            .scores = logits,
            .experts = o.write<std::int32_t>(tokens),
            .weights = o.write(tokens)};
  });
  cases.add(kernels::gate_backward, "gate_backward", shape, [=](Operands& o) -> kernels::GateBackward {
    return {.tokens = tokens,
            .num_experts = experts,
            .scores = o.read(tokens * experts),
            .experts = o.read(dealt.experts),
            .weights = o.read(tokens),
            .d_weights = o.read(tokens),
            .d_probability_of_expert = o.read(experts),
            .d_logits = o.write(tokens * experts)};
  });
  cases.add(kernels::sort_by_expert, "sort_by_expert", shape, [=](Operands& o) -> kernels::SortByExpert {
    return {.assignments = tokens,
            .num_experts = experts,
            .experts = o.read(dealt.experts),
            .tokens_per_expert = o.write<std::int32_t>(experts),
            .assignment_of_slot = o.write<std::int32_t>(tokens),
            .slot_of_assignment = o.write<std::int32_t>(tokens)};
  });
  const Index expert_size = cases.hidden * cases.fan_in;
  cases.add(kernels::mean, "mean", by({experts, expert_size}), [=](Operands& o) -> kernels::Mean {
    return {.count = experts, .size = expert_size, .x = o.read(experts * expert_size), .mean = o.write(expert_size)};
  });
}

void add_routing_rows(CaseList& cases) {
  const Index tokens = cases.tokens, width = cases.width, out = cases.out;
  const DealtTokens dealt(tokens, cases.config.ffn.experts);
  const std::string shape = by({tokens, width});
  cases.add(kernels::dispatch, "dispatch", shape, [=](Operands& o) -> kernels::Dispatch {
    return {.num_slots = tokens,
            .cols = width,
            .rows = o.read(tokens * width),
            .assignment_of_slot = o.read(dealt.assignment_of_slot),
            .slots = o.write_operand(tokens, width),
            .slot_ids = o.write<std::int32_t>(tokens)};
  });
  cases.add(kernels::dispatch_backward, "dispatch_backward", shape, [=](Operands& o) -> kernels::DispatchBackward {
    return {.tokens = tokens,
            .cols = width,
            .d_slots = o.read_operand(tokens, width),
            .slot_of_assignment = o.read(dealt.slot_of_assignment),
            .d_rows = o.write(tokens * width)};
  });
  cases.add_with_dropout(kernels::combine, "combine", by({tokens, out}),
                         [=](Operands& o, const kernels::Dropout& dropout) -> kernels::Combine {
                           return {.tokens = tokens,
                                   .cols = out,
                                   .slots = o.read_operand(tokens, out),
                                   .slot_of_assignment = o.read(dealt.slot_of_assignment),
                                   .weights = o.read(tokens),
                                   .residual = o.read(tokens * out),
                                   .y = o.write(tokens * out),
                                   .dropout = dropout};
                         });
  cases.add_with_dropout(kernels::combine_backward, "combine_backward", by({tokens, out}),
                         [=](Operands& o, const kernels::Dropout& dropout) -> kernels::CombineBackward {
                           return {.tokens = tokens,
                                   .cols = out,
                                   .d_y = o.read(tokens * out),
                                   .slots = o.read_operand(tokens, out),
                                   .slot_of_assignment = o.read(dealt.slot_of_assignment),
                                   .weights = o.read(tokens),
                                   .d_slots = o.write_operand(tokens, out),
                                   .d_weights = o.write(tokens),
                                   .dropout = dropout};
                         });
}

}  // namespace

void add_routing_cases(CaseList& cases) {
  add_routers(cases);
  add_routing_rows(cases);
}

}  // namespace switchyard
