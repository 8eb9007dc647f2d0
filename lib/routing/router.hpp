// A router turns a microbatch's tokens into a route plan. One file per router, its equation in the file's header
// comment; router.cpp holds the table from name to factory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/parameter_store.hpp"
#include "core/context.hpp"
#include "kernels/api/arena.hpp"
#include "routing/route_plan.hpp"

namespace switchyard {

// What a router may know of the microbatch before it. Routing is a function of this and of parameters, never of ranks.
struct RouteInput {
  const Context& context;
  kernels::Arena& arena;  // the plan's arrays live there
  const ParameterStore& parameters;
  const float* x = nullptr;  // (samples * tokens_per_sample, width)
  Index samples = 0, tokens_per_sample = 0;
  Index first_sample = 0;  // of the batch or of the test set
  Index layer = 0, step = 0;
  std::uint64_t seed = 0;
  bool training = false;

  Index tokens() const { return samples * tokens_per_sample; }
};

class Router {
 public:
  virtual ~Router() = default;

  // Adds this microbatch's auxiliary losses, already weighted, to *auxiliary_loss.
  virtual RoutePlan route(const RouteInput& input, double* auxiliary_loss) = 0;

  // Whether the loss reaches the router through the weights it gave.
  virtual bool needs_weight_gradients() const { return false; }

  // d_weights: (tokens * top_k). Adds to d_x (tokens, width) and writes parameter gradients. The auxiliary losses count
  // auxiliary_scale each: one over the batch's microbatches.
  virtual void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double auxiliary_scale,
                        float* d_x, GradientSums& gradients) {
    static_cast<void>(input), static_cast<void>(plan), static_cast<void>(d_weights);
    static_cast<void>(auxiliary_scale), static_cast<void>(d_x), static_cast<void>(gradients);
  }
};

struct RouterOptions {
  std::string name;         // "switch" | "random"
  std::string granularity;  // of random routing: "batch" | "sample" | "token" | "balanced"
  Index num_experts = 0, width = 0;
  double balance_loss = 0;
  std::string prefix;  // of its parameters' names: "blocks.3.gate"
};

// Adds the router's parameters to the table. Fails for a name that the table of routers does not have.
std::unique_ptr<Router> make_router(const RouterOptions& options, ParameterTable& table);

std::unique_ptr<Router> make_switch_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_random_router(const RouterOptions& options, ParameterTable& table);

// What every router ends with: slots by a stable sort of plan.experts, and counts on the host.
void fill_slots(const RouteInput& input, RoutePlan& plan);

}  // namespace switchyard
