// The fast feedforward network of Belcak & Wattenhofer (2308.14711): a binary tree of nodes, each one neuron, over
// 2^depth leaves, each a network leaf_e(x) = relu(x w1_e^T + b1_e) w2_e + b2_e of `leaf` hidden units.
//   training    y = sum over e of mixture_e(x) leaf_e(x), all leaves (kernels/api/tree.hpp: mixture)
//   evaluation  y = leaf_e(x) of the one leaf at which x comes out, tokens travelling to its owner
// Added to the loss: hardening * mean over the batch's tokens of the mean over nodes of the entropy of the node's
// choice, in nats; layers are added up.
//
// Each leaf belongs to one rank of the expert group, which keeps its optimiser's state. In training the leaves together
// are no larger than a dense network, so weights travel, once a step, and not tokens to every leaf.
#pragma once

#include "kernels/api/tree.hpp"
#include "model/ffn.hpp"
#include "model/gathered_leaves.hpp"
#include "routing/exchange.hpp"

namespace switchyard {

class FffFfn final : public Ffn {
 public:
  FffFfn(const FfnOptions& options, ParameterTable& table);

  bool host_waits() const override { return true; }  // for the entropies of nodes

  // Products in training, whole trees in evaluation.
  InputForm prepare(const Pass&, const Input&) override { return {kernels::Readers::kBoth}; }
  float* forward(const Pass& pass, const Input& input, AuxiliaryLosses* losses) override {
    input_ = input;
    return pass.training ? forward_all_leaves(pass, losses) : forward_one_leaf(pass);
  }
  InputGradient backward(const Pass& pass, const float* d_y, bool wants_d_x) override;

  const TreeState* tree() const override { return &state_; }

 private:
  enum Weight : std::size_t { kW1, kB1, kW2, kB2 };

  // Training: fff_ffn.cpp.
  float* forward_all_leaves(const Pass& pass, AuxiliaryLosses* losses);
  void nodes_forward(const Pass& pass);
  float* leaves_forward(const Pass& pass);
  // y = residual + dropout(y), where there is a residual.
  void add_residual(const Pass& pass, float* y) const;
  double mean_entropy(const Pass& pass) const;
  // Returns d_hidden.
  kernels::Operand leaves_backward(const Pass& pass, const kernels::Operand& d_y, float* d_mixture) const;
  void nodes_backward(const Pass& pass, const float* d_mixture, float* d_x) const;
  // Evaluation: fff_evaluation.cpp.
  float* forward_one_leaf(const Pass& pass) const;
  float* forward_at_home(const Pass& pass) const;
  RoutePlan descend(const Pass& pass) const;
  float* visit_leaves(const Pass& pass, const std::vector<Segment>& segments, Index rows, const float* x) const;

  // Dropout of what is added to the residual.
  kernels::Dropout dropout(const Pass& pass) const {
    return residual_dropout(pass, input_, Purpose::kFfnResidualDropout, options_.layer);
  }
  RandomKey leak_key(const Pass& pass) const { return pass.key(Purpose::kRegionLeak, options_.layer); }
  Index hidden() const { return leaves_ * options_.tree.leaf; }

  FfnOptions options_;
  Index nodes_, leaves_;
  Linear node_;
  GatheredLeaves weights_;

  // Of the microbatch at hand:
  Input input_;
  float* logits_ = nullptr;     // (rows, nodes)
  float* choices_ = nullptr;    // (rows, nodes)
  float* mixture_ = nullptr;    // (rows, leaves)
  float* linear_ = nullptr;     // (rows, leaves * leaf): x w1^T, without bias
  float* activated_ = nullptr;  // (rows, leaves * leaf)
  float* scaled_ = nullptr;     // (rows, leaves * leaf): times the leaf's share
  TreeState state_;
};

}  // namespace switchyard
