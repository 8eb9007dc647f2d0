// Hash routing (Hash Layers: Roller et al., 2106.04426), without parameters and with weight 1: a fixed function of the
// token alone chooses its expert, the same in training and evaluation, another one in every layer.
//   position  the token's place in its sample: a random permutation of the places dealt out evenly (balanced hash)
//   content   what its patch looks like, one of 65 words (kernels/api/embedding.hpp): word -> expert at random; uneven,
//             since some words are more frequent than others
#include <numeric>

#include "core/error.hpp"
#include "core/random.hpp"
#include "kernels/api/embedding.hpp"
#include "routing/router.hpp"

namespace switchyard {

namespace {

class HashRouter final : public Router {
 public:
  explicit HashRouter(const RouterOptions& options) : options_(options), by_content_(options.hash == "content") {
    if (options.hash != "content" && options.hash != "position")
      fail_usage("ffn.hash: \"{}\" is not one of position, content", options.hash);
    refuse_gate(options);
  }

  bool needs_x() const override { return false; }
  bool host_waits() const override { return by_content_; }

  RoutePlan route(const RouteInput& input, AuxiliaryLosses*) override {
    if (experts_of_words_.empty()) make_table(input);
    RoutePlan plan;
    plan.tokens = input.tokens();
    plan.num_experts = options_.num_experts;
    words_.resize(static_cast<std::size_t>(plan.tokens));
    if (by_content_)
      kernels::copy_to_host(input.context, words_.data(), input.words, plan.tokens * 4);
    else
      for (std::size_t token = 0; token < words_.size(); ++token)
        words_[token] = static_cast<std::int32_t>(static_cast<Index>(token) % input.tokens_per_sample);
    for (std::int32_t& word : words_) word = experts_of_words_[static_cast<std::size_t>(word)];
    give_experts(input, words_, plan);
    fill_slots(input, expert_capacity(options_, input, 1, plan.num_experts), plan);
    plan.same_counts_everywhere = !by_content_ && input.training;
    return plan;
  }

 private:
  void make_table(const RouteInput& input) {
    const Index num_words = by_content_ ? kernels::kNumWords : input.tokens_per_sample;
    const auto experts = static_cast<std::uint32_t>(options_.num_experts);
    const RandomKey key{input.seed, Purpose::kHash, static_cast<std::uint32_t>(input.layer), 0};
    experts_of_words_.resize(static_cast<std::size_t>(num_words));
    for (std::size_t word = 0; word < experts_of_words_.size(); ++word)
      experts_of_words_[word] = static_cast<std::int32_t>(
          by_content_ ? to_below(random_words(key, static_cast<std::uint32_t>(word), 0)[0], experts)
                      : static_cast<std::uint32_t>(word) % experts);
    if (by_content_) return;
    for (std::size_t left = experts_of_words_.size(); left > 1; --left)  // Fisher-Yates
      std::swap(experts_of_words_[left - 1],
                experts_of_words_[to_below(random_words(key, static_cast<std::uint32_t>(left), 0)[0],
                                           static_cast<std::uint32_t>(left))]);
  }

  RouterOptions options_;
  bool by_content_;
  std::vector<std::int32_t> experts_of_words_;  // of words, or of places in a sample
  std::vector<std::int32_t> words_;             // (tokens)
};

}  // namespace

std::unique_ptr<Router> make_hash_router(const RouterOptions& options, ParameterTable&) {
  return std::make_unique<HashRouter>(options);
}

}  // namespace switchyard
