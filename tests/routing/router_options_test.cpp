// Options that a router cannot take are usage errors, which name the key and what to do.
#include <gtest/gtest.h>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

std::string error_of(RouterOptions options) {
  options.width = 8;
  try {
    RouterUnderTest router(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage) << error.what();
    return error.what();
  }
  return "";
}

TEST(RouterOptions, DefaultsSuitEveryRouter) {
  for (const RouterRow& row : router_table()) EXPECT_EQ(error_of({.name = row.name, .num_experts = 4}), "");
}

TEST(RouterOptions, ThatCannotBeAreErrors) {
  struct Case {
    RouterOptions options;
    const char *key, *remedy;
  };
  const Case cases[] = {
      {{.name = "top_k", .num_experts = 4, .top_k = 5}, "ffn.top_k = 5 is more than the ffn.experts = 4", "lower it"},
      {{.name = "noisy_top_k", .num_experts = 4, .top_k = 5}, "ffn.top_k = 5", "lower it"},
      {{.name = "loss_free", .num_experts = 4, .top_k = 5}, "ffn.top_k = 5", "lower it"},
      {{.name = "top_k", .num_experts = 4, .scores = "sigmoid", .z_loss = 0.1},
       "ffn.z_loss = 0.1",
       "set it to 0, or ffn.scores = softmax"},
      {{.name = "top_k", .num_experts = 4, .scores = "tanh"}, "ffn.scores: \"tanh\"", "one of softmax, sigmoid"},
      {{.name = "switch", .num_experts = 4, .scores = "sigmoid"}, "ffn.scores = sigmoid", "top_k and loss_free"},
      {{.name = "noisy_top_k", .num_experts = 4, .scores = "sigmoid"}, "ffn.scores = sigmoid", "top_k and loss_free"},
      {{.name = "expert_choice", .num_experts = 4, .scores = "sigmoid"}, "ffn.scores = sigmoid", "top_k and loss_free"},
      {{.name = "switch", .num_experts = 4, .load_loss = 0.1}, "ffn.load_loss = 0.1", "ffn.router = noisy_top_k"},
      {{.name = "top_k", .num_experts = 4, .load_loss = 0.1}, "ffn.load_loss = 0.1", "set it to 0"},
      {{.name = "loss_free", .num_experts = 4, .load_loss = 0.1}, "ffn.load_loss = 0.1", "set it to 0"},
      {{.name = "expert_choice", .num_experts = 4, .load_loss = 0.1}, "ffn.load_loss = 0.1", "set it to 0"},
      {{.name = "expert_choice", .num_experts = 4, .balance_loss = 0.1}, "ffn.balance_loss", "to 0, or -1"},
      {{.name = "expert_choice", .num_experts = 4, .importance_loss = 0.1}, "ffn.importance_loss", "to 0, or -1"},
      {{.name = "expert_choice", .num_experts = 4, .capacity_train = 5}, "ffn.capacity_train = 5", "lower it"},
      {{.name = "expert_choice", .num_experts = 4, .capacity_eval = 5}, "ffn.capacity_eval = 5", "lower it"},
      {{.name = "expert_choice", .num_experts = 4, .gating_dropout = 0.2, .home_ranks = 2, .home_experts = 2},
       "ffn.gating_dropout = 0.2",
       "set it to 0"},
      {{.name = "expert_choice", .num_experts = 4, .gate_tilt = -1}, "ffn.gate_tilt = -1", "set it to 0"},
      {{.name = "hash", .num_experts = 4, .gate_tilt = -1}, "ffn.gate_tilt", "set it to 0"},
      {{.name = "random", .num_experts = 4, .z_loss = 0.1}, "ffn.z_loss = 0.1", "set it to 0"},
      {{.name = "random", .num_experts = 4, .gating_dropout = 0.2, .home_ranks = 2, .home_experts = 2},
       "ffn.gating_dropout = 0.2: ffn.router = random has no gate",
       "set it to 0"},
      {{.name = "hash", .num_experts = 4, .gating_dropout = 0.2, .home_ranks = 2, .home_experts = 2},
       "ffn.gating_dropout = 0.2: ffn.router = hash has no gate",
       "set it to 0"},
      {{.name = "hash", .num_experts = 4, .gate_jitter = 0.1}, "ffn.gate_jitter = 0.1", "set it to 0"},
      {{.name = "hash", .num_experts = 4, .importance_loss = 0.1}, "ffn.importance_loss = 0.1", "set it to 0"},
      {{.name = "switch", .num_experts = 4, .capacity_order = "token"},
       "ffn.capacity_order = token: ffn.router = switch has no second choices",
       "leave it at choice"},
      {{.name = "expert_choice", .num_experts = 4, .capacity_order = "token"},
       "ffn.capacity_order = token",
       "leave it"},
      {{.name = "random", .num_experts = 4, .capacity_order = "token"}, "ffn.capacity_order = token", "leave it"},
      {{.name = "hash", .num_experts = 4, .capacity_order = "token"}, "ffn.capacity_order = token", "leave it"},
      {{.name = "patch_sum", .num_experts = 4, .capacity_order = "token"}, "ffn.capacity_order = token", "leave it"},
      {{.name = "switch", .num_experts = 4, .noise_floor = 0},
       "ffn.noise_floor = 0: ffn.router = switch has no such noise",
       "leave it at 0.01, or ffn.router = noisy_top_k"},
      {{.name = "top_k", .num_experts = 4, .noise_floor = 0}, "ffn.noise_floor = 0", "leave it at 0.01"},
      {{.name = "loss_free", .num_experts = 4, .noise_floor = 0}, "ffn.noise_floor = 0", "leave it at 0.01"},
      {{.name = "expert_choice", .num_experts = 4, .noise_floor = 1}, "ffn.noise_floor = 1", "leave it at 0.01"},
      {{.name = "random", .num_experts = 4, .noise_floor = 0}, "ffn.noise_floor = 0", "leave it at 0.01"},
      {{.name = "hash", .num_experts = 4, .noise_floor = 0}, "ffn.noise_floor = 0", "leave it at 0.01"},
      {{.name = "patch_sum", .num_experts = 4, .noise_floor = 0}, "ffn.noise_floor = 0", "leave it at 0.01"},
      {{.name = "hash", .num_experts = 4, .hash = "colour"}, "ffn.hash: \"colour\"", "one of position, content"},
      {{.name = "random", .num_experts = 4, .draw = "step"}, "ffn.draw: \"step\"", "one of model, layer"},
      {{.name = "switch", .num_experts = 4, .gating_dropout = 0.2}, "ffn.home_experts = 1", "parallel.experts"},
      {{.name = "switch", .num_experts = 4, .gating_dropout = 0.2, .home_ranks = 3, .home_experts = 3},
       "ffn.home_experts = 3 must divide ffn.experts = 4",
       "take a divisor of both"},
      {{.name = "switch", .num_experts = 4, .gating_dropout = 0.2, .home_ranks = 3, .home_experts = 2},
       "and ffn.home_ranks = 3",
       "take a divisor of both"},
      {{.name = "top_k", .num_experts = 4, .gating_dropout = 0.2, .home_ranks = 4, .home_experts = 4},
       "ffn.home_experts = 4 leaves 1 of 4 experts at each home, fewer than the 2",
       "lower it or ffn.top_k"},
  };
  for (const Case& c : cases) {
    const std::string message = error_of(c.options);
    EXPECT_TRUE(contains(message, c.key)) << c.options.name << ": " << message << "\nlacks " << c.key;
    EXPECT_TRUE(contains(message, c.remedy)) << c.options.name << ": " << message << "\nlacks " << c.remedy;
  }
}

}  // namespace
}  // namespace switchyard::testing
