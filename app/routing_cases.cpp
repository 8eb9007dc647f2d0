// Kernels of routers, of the exchange and of evaluation with the mean of the experts.
#include "app/case_list.hpp"
#include "kernels/api/gate.hpp"
#include "kernels/api/layernorm.hpp"
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

// Of a transformer's blocks: rows to their slots where routers need no x; their gradients back, and a gate's with them.
void add_norms(CaseList& cases) {
  const Index tokens = cases.tokens, width = cases.width;
  const DealtTokens dealt(tokens, cases.config.ffn.experts);
  cases.add(kernels::layernorm, "layernorm", by({tokens, width}) + ", to slots",
            [=](Operands& o) -> kernels::LayerNorm {
              return {.rows = tokens,
                      .cols = width,
                      .x = o.read(tokens * width),
                      .x_stride = width,
                      .gamma = o.read(width),
                      .beta = o.read(width),
                      .y = o.write_operand(tokens, width),
                      .slots = {.slot_of_assignment = o.read(dealt.slot_of_assignment)},
                      .mean = o.write(tokens),
                      .rstd = o.write(tokens)};
            });
  cases.add(kernels::layernorm_backward, "layernorm_backward", by({tokens, width}) + ", from slots",
            [=](Operands& o) -> kernels::LayerNormBackward {
              return {.rows = tokens,
                      .cols = width,
                      .x = o.read(tokens * width),
                      .x_stride = width,
                      .gamma = o.read(width),
                      .mean = o.read(tokens),
                      .rstd = o.read(tokens),
                      .d_y = o.read_operand(tokens, width),
                      .slots = {.slot_of_assignment = o.read(dealt.slot_of_assignment)},
                      .addend = o.read(tokens * width),
                      .d_x = o.update(tokens * width),
                      .d_gamma = o.write(width),
                      .d_beta = o.write(width)};
            });
}

}  // namespace

void add_routing_cases(CaseList& cases) {
  add_routers(cases);
  add_routing_rows(cases);
  if (cases.model.is_vit()) add_norms(cases);
}

}  // namespace switchyard
