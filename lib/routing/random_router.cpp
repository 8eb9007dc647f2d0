// Random routing, without parameters and with weight 1: the expert of a token is drawn by Philox, one draw for all
// layers (ffn.draw = model), or each layer its own (ffn.draw = layer),
//   batch     one expert for the whole batch (the seed study's rule; THOR, 2110.04260, draws so in each layer), another
//             one for a second pass over it
//   sample    one expert for each sample
//   token     one expert for each token
//   balanced  a random permutation of the microbatch's tokens, dealt out evenly: expert e gets tokens / E of them, and
//             one more where e < tokens mod E. Every rank knows these counts without an exchange.
// Draws are keyed by step and by the sample's or token's place in the batch; in evaluation by its place in the test
// set.
#include <numeric>

#include "core/error.hpp"
#include "core/random.hpp"
#include "routing/router.hpp"

namespace switchyard {

namespace {

class RandomRouter final : public Router {
 public:
  explicit RandomRouter(const RouterOptions& options) : options_(options), num_experts_(options.num_experts) {
    refuse_gate(options);
    if (options.draw != "model" && options.draw != "layer")
      fail_usage("ffn.draw: \"{}\" is not one of model, layer", options.draw);
    if (options.granularity == "batch") {
      draw_ = &RandomRouter::draw_for_batch;
    } else if (options.granularity == "sample") {
      draw_ = &RandomRouter::draw_for_samples;
    } else if (options.granularity == "token") {
      draw_ = &RandomRouter::draw_for_tokens;
    } else if (options.granularity == "balanced") {
      draw_ = &RandomRouter::draw_balanced;
    } else {
      fail_usage("ffn.granularity: \"{}\" is not one of batch, sample, token, balanced", options.granularity);
    }
    same_everywhere_ = options.granularity == "batch" || options.granularity == "balanced";
  }

  bool needs_x() const override { return false; }
  bool host_waits() const override { return false; }
  // One for each expert that the batch may go to.
  Index num_kinds_of_steps() const override {
    if (options_.granularity == "batch" && options_.draw == "model") return num_experts_;
    return options_.granularity == "balanced" ? 1 : 0;
  }
  Index kind_of_step(std::uint64_t seed, Index step) const override {
    return options_.granularity == "batch" ? draw(key(seed, Purpose::kRoute, 0, step), 0) : 0;
  }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses*) override {
    RoutePlan plan;
    plan.tokens = input.tokens();
    plan.num_experts = num_experts_;
    // Microbatches of a training batch are all of one size; the last one of a test set may be smaller.
    plan.same_counts_everywhere = same_everywhere_ && input.training;
    experts_.resize(static_cast<std::size_t>(plan.tokens));
    (this->*draw_)(input);
    give_experts(input, experts_, plan);
    if (input.recording && options_.granularity == "balanced") draw_again_for_each_step(input, plan.experts);
    fill_slots(input, expert_capacity(options_, input, 1, plan.num_experts), plan);
    return plan;
  }

 private:
  void draw_again_for_each_step(const RouteInput& recorded, std::int32_t* experts) {
    recorded.recording->redraws.push_back([this, recorded, experts](kernels::Graph& graph, Index step) {
      RouteInput input = recorded;
      input.step = step;
      experts_.resize(static_cast<std::size_t>(input.tokens()));
      (this->*draw_)(input);
      graph.replace_copy(experts, experts_.data(), std::ssize(experts_) * Index{sizeof(std::int32_t)});
    });
  }

  RandomKey key(std::uint64_t seed, Purpose purpose, Index layer, Index step) const {
    return {seed, purpose, options_.draw == "layer" ? static_cast<std::uint32_t>(layer) + 1 : 0,
            static_cast<std::uint32_t>(step)};
  }
  RandomKey key(const RouteInput& input) const {
    return key(input.seed, input.training ? Purpose::kRoute : Purpose::kRouteEvaluation, input.layer, input.step);
  }

  std::int32_t draw(const RandomKey& key, std::uint32_t row) const {
    return static_cast<std::int32_t>(to_below(random_words(key, row, 0)[0], static_cast<std::uint32_t>(num_experts_)));
  }

  void draw_for_batch(const RouteInput& input) {
    const std::ptrdiff_t tokens_per_pass = input.tokens() / input.passes;
    for (Index pass = 0; pass < input.passes; ++pass)
      std::fill_n(experts_.begin() + pass * tokens_per_pass, tokens_per_pass,
                  draw(key(input), static_cast<std::uint32_t>(pass)));
  }

  void draw_for_samples(const RouteInput& input) {
    for (std::size_t token = 0; token < experts_.size(); ++token) {
      const auto sample = static_cast<Index>(token) / input.tokens_per_sample;
      experts_[token] = static_cast<Index>(token) % input.tokens_per_sample == 0
                            ? draw(key(input), static_cast<std::uint32_t>(input.first_sample + sample))
                            : experts_[token - 1];
    }
  }

  void draw_for_tokens(const RouteInput& input) {
    const Index first_token = input.first_sample * input.tokens_per_sample;
    for (std::size_t token = 0; token < experts_.size(); ++token)
      experts_[token] = draw(key(input), static_cast<std::uint32_t>(first_token + static_cast<Index>(token)));
  }

  // Fisher-Yates over the microbatch's tokens; place i of the permutation belongs to expert i mod E.
  void draw_balanced(const RouteInput& input) {
    for (std::size_t token = 0; token < experts_.size(); ++token)
      experts_[token] = static_cast<std::int32_t>(static_cast<Index>(token) % num_experts_);
    const Index first_token = input.first_sample * input.tokens_per_sample;
    for (std::size_t left = experts_.size(); left > 1; --left) {
      const auto row = static_cast<std::uint32_t>(first_token + static_cast<Index>(left) - 1);
      const std::uint32_t chosen = to_below(random_words(key(input), row, 0)[0], static_cast<std::uint32_t>(left));
      std::swap(experts_[left - 1], experts_[chosen]);
    }
  }

  RouterOptions options_;
  Index num_experts_;
  void (RandomRouter::*draw_)(const RouteInput&) = nullptr;
  bool same_everywhere_ = false;       // tokens of each expert, in every microbatch
  std::vector<std::int32_t> experts_;  // (tokens)
};

}  // namespace

std::unique_ptr<Router> make_random_router(const RouterOptions& options, ParameterTable&) {
  return std::make_unique<RandomRouter>(options);
}

}  // namespace switchyard
