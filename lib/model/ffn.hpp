// The second half of a pre-norm transformer block: y = residual + dropout(ffn(x)), x already normalised; or, without a
// residual, a network by itself: y = ffn(x). One file per kind.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "kernels/api/elementwise.hpp"
#include "model/layers.hpp"
#include "routing/router.hpp"

namespace switchyard {

// Of a microbatch in training; arrays of the arena, shapes as in kernels/api/tree.hpp.
struct TreeState {
  const float* entropy_sums = nullptr;  // (nodes) over rows
  const float* mixture = nullptr;       // (rows, leaves)
};

class Ffn {
 public:
  virtual ~Ffn() = default;

  struct Input {
    Index samples = 0, tokens_per_sample = 0, first_sample = 0;
    kernels::Operand x{};                 // (rows, width), rows = samples * tokens_per_sample, or in slots
    const float* residual = nullptr;      // (rows, out); null: none
    const std::int32_t* words = nullptr;  // (rows): what patches look like; null: no router asked
    Index passes = 1;                     // over the same samples, as in RouteInput
    kernels::SlotsOfRows slots{};         // where rows of x lie
    Index rows() const { return samples * tokens_per_sample; }
    Index first_row() const { return first_sample * tokens_per_sample; }
  };

  // As Router, where all experts are this rank's.
  virtual bool host_waits() const { return false; }
  virtual Index num_kinds_of_steps() const { return host_waits() ? 0 : 1; }
  virtual Index kind_of_step(std::uint64_t seed, Index step) const {
    static_cast<void>(seed), static_cast<void>(step);
    return 0;
  }

  // How to write the x that forward() is given next, asked before there is one; a model that does not ask gives it in
  // order and in fp32. Collective over the expert group, as forward() is.
  virtual InputForm prepare(const Pass& pass, const Input& input) = 0;
  // Returns y (rows, out), from the arena; adds its auxiliary losses to *losses.
  virtual float* forward(const Pass& pass, const Input& input, AuxiliaryLosses* losses) = 0;
  // d_y: (rows, out), left as it is. Returns the gradient of x, from the arena; nothing where it is not wanted.
  virtual InputGradient backward(const Pass& pass, const float* d_y, bool wants_d_x) = 0;

  // Once before each evaluation. Collective over the expert group.
  virtual void prepare_evaluation(const Pass& pass) { static_cast<void>(pass); }
  // Where the last microbatch's tokens went; null where there are no experts.
  virtual const RoutePlan* plan() const { return nullptr; }
  // How the last microbatch of training fell through its tree; null where there is none.
  virtual const TreeState* tree() const { return nullptr; }
  // After the optimiser's step; chosen as in Router.
  virtual void after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters) {
    static_cast<void>(context), static_cast<void>(chosen), static_cast<void>(parameters);
  }
};

struct TreeOptions {
  Index depth = 0, leaf = 0;  // leaf: hidden units of each of the 2^depth leaves
  double hardening = 0;       // weight of the entropy of choices
  double region_leak = 0;     // probability that a node's children are swapped for a token
  bool hard = false;          // train with choices rounded, and so nodes as they are
};

struct FfnOptions {
  std::string kind;  // dense | moe | fff
  Index width = 0, out = 0, hidden = 0, layer = 0;
  kernels::Activation activation = kernels::Activation::kGelu;
  // Above 0: networks are convolutional, over rows of so many patches, and hidden is the number of their filters (dense
  // and moe; patch_network.cpp).
  Index patches = 0;
  std::string prefix;  // "blocks.3"
  // Mixtures only:
  Index num_experts = 0;
  Index shared = 0;                      // experts that every token visits
  bool average_inference = false;        // evaluate with the mean of the experts' weights
  bool same_start = false;               // every expert starts with the same weights
  std::optional<double> expert_dropout;  // inside experts; otherwise that of the pass
  RouterOptions router;                  // num_experts, width and prefix are filled in from the above

  // Trees only; num_experts is their number of leaves:
  TreeOptions tree;

  bool is_mixture() const { return kind == "moe"; }
  bool is_tree() const { return kind == "fff"; }
  // Experts, or leaves of a tree, that a token visits.
  Index parts_per_token() const { return is_tree() ? 1 : experts_per_token(router); }
};

std::unique_ptr<Ffn> make_ffn(const FfnOptions& options, ParameterTable& table);
std::unique_ptr<Ffn> make_moe_ffn(const FfnOptions& options, ParameterTable& table);
std::unique_ptr<Ffn> make_fff_ffn(const FfnOptions& options, ParameterTable& table);

std::unique_ptr<Ffn> make_patch_network(const FfnOptions& options, ParameterTable& table);

// What is drawn for the dropout of a network: its own two purposes where a block has two of them.
struct FfnDropout {
  Purpose hidden = Purpose::kFfnDropout, residual = Purpose::kFfnResidualDropout;
};
// Of what is added to the residual; none without one.
kernels::Dropout residual_dropout(const Pass& pass, const Ffn::Input& input, Purpose purpose, Index layer);
// name: of its parameters, after the prefix: "ffn".
std::unique_ptr<Ffn> make_dense_ffn(const FfnOptions& options, ParameterTable& table, const std::string& name = "ffn",
                                    const FfnDropout& dropout = {});

// One feed-forward network's weights: w1 (hidden, width), b1 (hidden), w2 (out, hidden), b2 (out).
struct FfnWeights {
  const float *w1, *b1, *w2, *b2;
};

// What the backward pass of a single network needs; arrays of the arena.
struct FfnActivations {
  kernels::Operand hidden;     // (rows, hidden): x w1^T, without bias
  kernels::Operand activated;  // (rows, hidden): dropout(activation(hidden + b1))
};

// y = residual + dropout(dropout(activation(x w1^T + b1)) w2^T + b2), returned from the arena. The outer dropout needs
// a residual.
float* feed_forward(const Pass& pass, const FfnOptions& options, const FfnWeights& weights, const Ffn::Input& input,
                    const FfnDropout& dropout, FfnActivations& activations);

}  // namespace switchyard
