// The experts of a mixture: networks over segments of tokens, a segment being the tokens that one source microbatch
// sends to one expert. Gradients of an expert's weights are leaves of the tree of their source rank.
#pragma once

#include <vector>

#include "model/ffn.hpp"
#include "routing/exchange.hpp"

namespace switchyard {

// mean (one expert's size) = the mean over all experts, in order, wherever they are, of a parameter that each has.
// scratch: (experts, one expert's size). Collective over the expert group.
void average_over_experts(const Context& context, Communicator& expert_group, const ParameterStore& parameters,
                          ParameterId id, float* scratch, float* mean);
// The same for each id, whose means are made as large as they must be.
void average_over_experts(const Pass& pass, std::span<const ParameterId> ids, std::span<kernels::Array<float>> means);

class Experts {
 public:
  virtual ~Experts() = default;

  // Of x, and of the gradient of what forward returns.
  virtual kernels::Readers readers() const = 0;
  // x: (rows of all segments, width), by segment; ids: (rows) each token's own identity, which keys dropout. Returns
  // (rows, out) from the arena, for `readers_of_y`.
  virtual kernels::NewOperand forward(const Pass& pass, const std::vector<Segment>& segments, const kernels::Operand& x,
                                      const std::int32_t* ids, kernels::Readers readers_of_y) = 0;
  // Of the segments that forward saw last: d_y (rows, out), for `readers()` -> d_x (rows, width), from the arena;
  // nothing where it is not wanted.
  virtual kernels::NewOperand backward(const Pass& pass, const kernels::Operand& d_y, bool wants_d_x) = 0;

  // The network whose weights are the means of the experts', for forward_average(). Collective over the expert group.
  virtual void average(const Pass& pass) = 0;
  virtual float* forward_average(const Pass& pass, const Ffn::Input& input) const = 0;
};

// One expert's leaves of the tree, that are still to be added to it, and products that add their own.
class ExpertLeaves {
 public:
  // False, with a leaf of no token for each of the ids, where the segment is empty.
  static bool has_rows(const Pass& pass, std::span<const ParameterId> ids, const Segment& segment);
  float* take(const Pass& pass, ParameterId id, const Segment& segment);
  void add(const Pass& pass);
  static kernels::Gemm product(const Pass& pass, ParameterId id, const Segment& segment, const kernels::Gemm& product);

 private:
  std::vector<GradientSums::Leaf> leaves_;
};

// By what FfnOptions says of patches.
std::unique_ptr<Experts> make_experts(const FfnOptions& options, ParameterTable& table);
std::unique_ptr<Experts> make_ffn_experts(const FfnOptions& options, ParameterTable& table);
std::unique_ptr<Experts> make_patch_experts(const FfnOptions& options, ParameterTable& table);

}  // namespace switchyard
