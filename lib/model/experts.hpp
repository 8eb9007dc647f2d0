// The experts of a mixture: feed-forward networks over segments of tokens, a segment being the tokens that one source
// microbatch sends to one expert. Gradients of an expert's weights are leaves of the tree of their source rank.
#pragma once

#include <array>
#include <vector>

#include "model/ffn.hpp"
#include "routing/exchange.hpp"

namespace switchyard {

// mean (one expert's size) = the mean over all experts, in order, wherever they are, of a parameter that each has.
// scratch: (experts, one expert's size). Collective over the expert group.
void average_over_experts(const Context& context, Communicator& expert_group, const ParameterStore& parameters,
                          ParameterId id, float* scratch, float* mean);

class Experts {
 public:
  Experts(const FfnOptions& options, ParameterTable& table);

  // x: (rows of all segments, width), by segment; ids: (rows) each token's own identity, which keys dropout. Returns
  // (rows, out) from the arena.
  float* forward(const Pass& pass, const std::vector<Segment>& segments, const float* x, const std::int32_t* ids);
  // Of the segments that forward saw last: d_y (rows, out) -> d_x (rows, width), from the arena.
  float* backward(const Pass& pass, const float* d_y);

  // Of each weight, for averages(). Collective over the expert group.
  void average(const Pass& pass);
  FfnWeights averages() const;

 private:
  kernels::Dropout dropout(const Pass& pass, const Segment& segment) const;
  bool skip_if_empty(const Pass& pass, const Segment& segment);
  void begin_leaves();
  float* new_leaf(const Pass& pass, ParameterId id, const Segment& segment);
  static kernels::Gemm leaf_product(const Pass& pass, ParameterId id, const Segment& segment,
                                    const kernels::Gemm& product);
  void add_leaves(const Pass& pass);

  FfnOptions options_;
  ParameterId w1_, b1_, w2_, b2_;
  std::array<kernels::Array<float>, 4> averages_;  // of w1, b1, w2, b2

  // Of the segments at hand; rows lie by segment.
  std::vector<Segment> segments_;
  Index num_rows_ = 0;
  const float* x_ = nullptr;           // (rows, width)
  const std::int32_t* ids_ = nullptr;  // (rows)
  float* hidden_ = nullptr;            // (rows, hidden): without bias
  float* activated_ = nullptr;         // (rows, hidden)
  std::vector<kernels::Gemm> products_;
  std::vector<GradientSums::Leaf> leaves_;
};

}  // namespace switchyard
