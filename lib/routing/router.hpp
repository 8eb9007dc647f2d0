// A router turns a microbatch's tokens into a route plan. One file per router, its equation in the file's header
// comment; router.cpp holds the table from name to factory.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/parameter_store.hpp"
#include "core/context.hpp"
#include "kernels/api/arena.hpp"
#include "routing/load.hpp"
#include "routing/recording.hpp"
#include "routing/route_plan.hpp"

namespace switchyard {

// What a router may know of the microbatch before it. Routing is a function of this and of parameters, never of ranks.
struct RouteInput {
  const Context& context;
  kernels::Arena& arena;  // the plan's arrays live there
  const ParameterStore& parameters;
  kernels::Operand x{};                 // (samples * tokens_per_sample, width)
  const std::int32_t* words = nullptr;  // (samples * tokens_per_sample): what patches look like; null: nobody asked
  Index samples = 0, tokens_per_sample = 0;
  Index first_sample = 0;                      // of the batch or of the test set
  Index passes = 1;                            // over the same samples: of each an equal share of `samples`, in turn
  Index microbatch = 0, num_microbatches = 1;  // which of a training batch's it is
  Index layer = 0, step = 0;
  Recording* recording = nullptr;  // null: what the router launches is not recorded
  std::uint64_t seed = 0;
  bool training = false;

  Index tokens() const { return samples * tokens_per_sample; }
  Index first_token() const { return first_sample * tokens_per_sample; }
  // For kernels to draw with in this step and layer.
  RandomKey key(Purpose purpose) const { return key_of_step(seed, purpose, layer, step, recording); }
};

class Router {
 public:
  virtual ~Router() = default;

  // Whether routes hang on x, or have auxiliary losses. A router that needs no x may be asked before there is one.
  virtual bool needs_x() const { return true; }
  // Who reads x for such a router: kOthers, whoever needs it in fp32, or kProducts, who take it as products do.
  virtual kernels::Readers readers() const { return kernels::Readers::kOthers; }

  // Whether the host waits for what a GPU computes before it can give it the rest of a microbatch: for counts, or sums
  // of losses.
  virtual bool host_waits() const { return true; }
  // How many kinds of training steps there are, where a microbatch's launches are the same in all steps of a kind, and
  // the host waits for none: then a GPU's can be recorded. 0: it waits, or counts are others in every step.
  virtual Index num_kinds_of_steps() const { return host_waits() ? 0 : 1; }
  virtual Index kind_of_step(std::uint64_t seed, Index step) const {
    static_cast<void>(seed), static_cast<void>(step);
    return 0;
  }

  // Adds this microbatch's auxiliary losses, already weighted, to *losses.
  virtual RoutePlan route(const RouteInput& input, AuxiliaryLosses* losses) = 0;

  // Whether the loss reaches the router through the weights it gave.
  virtual bool needs_weight_gradients() const { return false; }

  // d_weights: (tokens * top_k). Writes d_x (tokens, width; null: not wanted) and gives parameters their gradients.
  // The auxiliary losses count auxiliary_scale each: one over the batch's microbatches.
  virtual void backward(const RouteInput& input, const RoutePlan& plan, const float* d_weights, double auxiliary_scale,
                        float* d_x, GradientSums& gradients) {
    static_cast<void>(input), static_cast<void>(plan), static_cast<void>(d_weights);
    static_cast<void>(auxiliary_scale), static_cast<void>(d_x), static_cast<void>(gradients);
  }

  // After the optimiser's step. chosen: (experts) tokens of the whole batch that each was chosen for, exact.
  virtual void after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters) {
    static_cast<void>(context), static_cast<void>(chosen), static_cast<void>(parameters);
  }
};

struct RouterOptions {
  std::string name = "switch";        // a row of router_table()
  Index num_experts = 0, width = 0;   // of the mixture
  Index patches = 1;                  // that a row consists of
  std::string prefix = "";            // of the router's parameters' names: "blocks.3.gate"
  Index top_k = 2;                    // experts per token, for routers that take any number
  std::string scores = "softmax";     // softmax | sigmoid
  bool renormalise = false;           // weights of a token's experts sum to 1
  std::string granularity = "batch";  // of random routing: batch | sample | token | balanced
  std::string draw = "model";         // of random routing: model, one draw for all layers | layer, one each
  std::string hash = "position";      // of what: position | content
  double bias_rate = 1e-3;            // of loss-free balancing
  double noise_floor = 0.01;          // of noisy_top_k: added to the standard deviation of its noise
  double gate_init = 1;               // times the usual start of the gate's weights
  double gate_tilt = 0;               // added to the start of expert 0's logit: an unlucky start
  double gate_jitter = 0, gate_dropout = 0;
  // Weights of auxiliary losses; kOwnDefault: the router's own.
  static constexpr double kOwnDefault = -1;
  double balance_loss = kOwnDefault, z_loss = 0, importance_loss = kOwnDefault, load_loss = kOwnDefault;
  // An expert takes at most factor * tokens * top_k / experts of a microbatch's assignments; 0: all.
  double capacity_train = 0, capacity_eval = 0;
  std::string capacity_order = "choice";  // which of them: all first choices before any second one | token by token
  // Gating dropout, and the layout in which a microbatch has its home.
  double gating_dropout = 0;
  Index home_ranks = 1, home_experts = 1;
};

// Adds the router's parameters to the table. Fails for a name that the table of routers does not have, and for options
// that the router cannot take.
std::unique_ptr<Router> make_router(const RouterOptions& options, ParameterTable& table);

// A row of the table of routers.
struct RouterRow {
  const char* name;
  const char* summary;
  bool learned;  // has a gate that is trained
  std::unique_ptr<Router> (*make)(const RouterOptions&, ParameterTable&);
};
std::span<const RouterRow> router_table();
// Fails, naming those there are, where the table has no such row.
const RouterRow& router_row(const std::string& name);
// `value`, or `own` where it is RouterOptions::kOwnDefault.
double or_own(double value, double own);

// expert_choice: how many experts take a token, on average.
double choices_per_token(const RouterOptions& options, bool training);
// How many experts a token visits; expert_choice: on average, rounded up.
Index experts_per_token(const RouterOptions& options);
// How many assignments a plan has of a token, made or not.
Index assignments_per_token(const RouterOptions& options, Index num_experts);

std::unique_ptr<Router> make_switch_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_top_k_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_noisy_top_k_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_loss_free_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_expert_choice_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_patch_sum_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_random_router(const RouterOptions& options, ParameterTable& table);
std::unique_ptr<Router> make_hash_router(const RouterOptions& options, ParameterTable& table);

// For routers that draw on the host: plan.experts on the device, and plan.chosen. experts: (tokens * top_k).
void give_experts(const RouteInput& input, const std::vector<std::int32_t>& experts, RoutePlan& plan);

// How many of a microbatch's assignments an expert takes, and which.
struct Capacity {
  Index limit = 0;         // 0: all
  bool by_choice = false;  // all tokens' first choices have room before any second one; else a token's before the next
};

// What every router ends with: slots by a stable sort of plan.experts, as many for each expert as the capacity says,
// and counts on the host. A router that knows plan.chosen beforehand has filled it in; else the host waits for the
// device to count. `wanted` comes to the host in the same wait.
void fill_slots(const RouteInput& input, const Capacity& capacity, RoutePlan& plan,
                std::vector<kernels::HostCopy> wanted = {});

// Fail where the router cannot do what the options ask for: the load loss and a noise's floor need noisy_top_k, sigmoid
// scores top_k or loss_free, an order of choices a token with more than one, and whatever belongs to a gate a router
// that has one.
void refuse_load_loss(const RouterOptions& options);
void refuse_sigmoid(const RouterOptions& options);
void refuse_renormalise(const RouterOptions& options);
void refuse_capacity_order(const RouterOptions& options);
void refuse_noise_floor(const RouterOptions& options);
void refuse_gate(const RouterOptions& options);

// ceil(factor * tokens * top_k / num_experts), at least 1; no limit where the factor is 0, or where that is all of
// them. num_experts: those that the tokens may go to.
Capacity expert_capacity(const RouterOptions& options, const RouteInput& input, Index top_k, Index num_experts);

}  // namespace switchyard
