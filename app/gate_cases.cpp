// Kernels of learned gates and of hash routing: of a few numbers for each token and expert, and of what a gate reads.
#include "app/case_list.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/embedding.hpp"
#include "kernels/api/gate.hpp"
#include "kernels/api/gate_logits.hpp"

namespace switchyard {

namespace {

// top_k = 1: what noise and its smooth load cost.
void add_noisy_gate(CaseList& cases) {
  const Index tokens = cases.tokens, experts = cases.config.ffn.experts, size = tokens * experts;
  const std::string shape = by({tokens, experts});
  const RandomKey key{cases.config.run.seed, Purpose::kGateNoise, 0, 0};
  cases.add(kernels::bias_add, "bias_add", shape, [=](Operands& o) -> kernels::BiasAdd {
    float* const logits = o.update(size);
    return {.rows = tokens, .cols = experts, .x = logits, .bias = o.read(experts), .y = logits};
  });
  cases.add(kernels::noisy_logits, "noisy_logits", shape, [=](Operands& o) -> kernels::NoisyLogits {
    return {.tokens = tokens,
            .num_experts = experts,
            .clean = o.read(size),
            .raw = o.read(size),
            .key = key,
            .noise = o.write(size),
            .noisy = o.write(size)};
  });
  if (experts < 2) return;  // the load needs an expert that is not chosen
  cases.add(kernels::load_probability, "load_probability", shape, [=](Operands& o) -> kernels::LoadProbability {
    return {.tokens = tokens,
            .num_experts = experts,
            .clean = o.read(size),
            .raw = o.read(size),
            .noisy = o.read(size),
            .probability = o.write(size)};
  });
  cases.add(kernels::noisy_backward, "noisy_backward", shape, [=](Operands& o) -> kernels::NoisyBackward {
    return {.tokens = tokens,
            .num_experts = experts,
            .clean = o.read(size),
            .raw = o.read(size),
            .noise = o.read(size),
            .noisy = o.read(size),
            .d_noisy = o.read(size),
            .d_load = o.read(experts),
            .d_clean = o.write(size),
            .d_raw = o.write(size)};
  });
}

// x as LayerNorm writes it for a gate.
void add_gate_products(CaseList& cases) {
  const Index tokens = cases.tokens, width = cases.width, experts = cases.config.ffn.experts;
  const auto x = [=](Operands& o) {
    return experts <= kernels::kMostExpertsOfRounded ? o.read_operand(tokens, width)
                                                     : kernels::Operand(o.read(tokens * width));
  };
  const std::string shape = by({tokens, width, experts});
  cases.add(kernels::gate_logits, "gate_logits", shape, [=](Operands& o) -> kernels::GateLogits {
    return {.tokens = tokens,
            .width = width,
            .num_experts = experts,
            .x = x(o),
            .weight = o.read(experts * width),
            .logits = o.write(tokens * experts)};
  });
  cases.add(kernels::gate_logits_backward, "gate_logits_backward", shape,
            [=](Operands& o) -> kernels::GateLogitsBackward {
              return {.tokens = tokens,
                      .width = width,
                      .num_experts = experts,
                      .x = x(o),
                      .weight = o.read(experts * width),
                      .d_logits = o.read(tokens * experts),
                      .d_x = o.write(tokens * width),
                      .d_weight = o.write(experts * width)};
            });
}

void add_gate_input(CaseList& cases) {
  const Index tokens = cases.tokens, width = cases.width, size = tokens * width;
  const std::string shape = by({tokens, width}) + ", jitter 0.01";
  const RandomKey key{cases.config.run.seed, Purpose::kGateJitter, 0, 0};
  cases.add(kernels::perturb_input, "perturb_input", shape, [=](Operands& o) -> kernels::PerturbInput {
    return {.rows = tokens, .cols = width, .x = o.read(size), .jitter = 0.01f, .jitter_key = key, .y = o.write(size)};
  });
}

void add_choices(CaseList& cases) {
  const Index tokens = cases.tokens, experts = cases.config.ffn.experts, size = tokens * experts;
  const std::string shape = by({tokens, experts});
  cases.add(kernels::expert_choice, "expert_choice", shape, [=](Operands& o) -> kernels::ExpertChoice {
    return {.tokens = tokens,
            .num_experts = experts,
            .capacity = tokens / experts,
            .scores = o.read(size),
            .experts = o.write<std::int32_t>(size),
            .weights = o.write(size)};
  });
  cases.add(kernels::route_statistics, "route_statistics", shape, [=](Operands& o) -> kernels::RouteStatistics {
    return {.tokens = tokens,
            .num_experts = experts,
            .experts = o.read(numbers(tokens, [=](Index t) { return t % experts; })),
            .weights = o.read(tokens),
            .probabilities = o.read(size),
            .weight_sums = o.write(experts),
            .entropy_sum = o.write(1)};
  });
}

// Of raw logits, with noise in evaluation too.
void add_noisy_choice(CaseList& cases) {
  const Index tokens = cases.tokens, experts = cases.config.ffn.experts;
  const std::string shape = by({tokens, experts});
  const RandomKey key{cases.config.run.seed, Purpose::kGateNoise, 0, 0};
  cases.add(kernels::noisy_choice, "noisy_choice", shape, [=](Operands& o) -> kernels::NoisyChoice {
    return {.tokens = tokens,
            .num_experts = experts,
            .logits = o.read(tokens * experts),
            .key = key,
            .experts = o.write<std::int32_t>(tokens),
            .weights = o.write(tokens)};
  });
  cases.add(kernels::noisy_choice_backward, "noisy_choice_backward", shape,
            [=](Operands& o) -> kernels::NoisyChoiceBackward {
              return {.tokens = tokens,
                      .num_experts = experts,
                      .experts = o.read(numbers(tokens, [=](Index t) { return t % experts; })),
                      .d_weights = o.read(tokens),
                      .d_logits = o.write(tokens * experts)};
            });
}

void add_patch_words(CaseList& cases) {
  const ModelOptions& model = cases.model;
  const Index samples = cases.samples, patches = model.num_patches(), patch = model.patch, channels = model.channels;
  const Index patch_size = channels * patch * patch;
  cases.add(kernels::patch_words, "patch_words", by({samples, patches, patch_size}),
            [=, mean = model.mean, deviation = model.deviation](Operands& o) -> kernels::PatchWords {
              return {.samples = samples,
                      .patches_per_sample = patches,
                      .channels = channels,
                      .patch = patch,
                      .patches = o.read(samples * patches * patch_size),
                      .mean = mean,
                      .deviation = deviation,
                      .words = o.write<std::int32_t>(samples * (patches + 1))};
            });
}

}  // namespace

void add_gate_cases(CaseList& cases) {
  add_gate_products(cases);
  add_noisy_gate(cases);
  add_gate_input(cases);
  add_choices(cases);
  add_noisy_choice(cases);
  if (cases.model.is_vit()) add_patch_words(cases);
}

}  // namespace switchyard
