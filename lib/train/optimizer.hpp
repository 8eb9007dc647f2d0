// Adam, AdamW, SGD or normalised gradient descent over all that a rank owns, in passes over flat arrays. Replicated
// parameters are updated by every rank, with the same bits.
#pragma once

#include <string>
#include <vector>

#include "comm/parameter_store.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/api/optimizer.hpp"

namespace switchyard {

struct OptimizerOptions {
  std::string kind;  // adam | adamw | sgd | normalized
  double weight_decay = 0, momentum = 0, beta1 = 0, beta2 = 0, epsilon = 0;
  double gate_rate = 1;  // normalized: times the learning rate, for what is not in experts
};

// Sums of squares of this rank's gradients, of each slice by itself.
class GradientSquares {
 public:
  GradientSquares(Device device, const ParameterStore& parameters);

  // Gives the sums to the stream; the copy that it returns brings them to the host, where they are used afterwards.
  kernels::HostCopy sum(const Context& context, const float* gradients);

  double of(ParameterId id, Index slice) const {
    return sums_[first_[static_cast<std::size_t>(id)] + static_cast<std::size_t>(slice)];
  }

  // sqrt of the sum of squares of all gradients of the model, added parameter by parameter in table order, those of
  // experts last: the same bits on every rank. Collective over the expert group.
  double norm(Communicator& expert_group) const;

 private:
  const ParameterStore& parameters_;
  std::vector<std::size_t> first_;  // of each parameter, where its slices' sums begin
  std::vector<double> sums_;
  kernels::Array<double> device_sums_;
  std::vector<kernels::SumOfSquares> arrays_;
};

class Optimizer {
 public:
  Optimizer(const Context& context, const OptimizerOptions& options, Index size);

  // gradient_scale multiplies every gradient first (clipping). step counts from 1. squares: of the gradients.
  void update(const Context& context, ParameterStore& parameters, const float* gradients,
              const GradientSquares& squares, double learning_rate, double gradient_scale, Index step);

  // One array in the parameters' layout for each kind of memory that the method keeps; names are those of files.
  struct State {
    std::string name;  // first_moment | second_moment | velocity
    kernels::Array<float> values;
  };
  std::vector<State>& states() { return states_; }

 private:
  // Normalised gradient descent (Chen et al., 2208.02813), as in their code: for each expert of each mixture, with g
  // its parameters' gradients and s the sum, over its parameters, of the norms of these,  p -= learning_rate g / s, and
  // nothing where s is 0, or below 1e-23; for other parameters plain SGD.
  void update_normalized(const Context& context, ParameterStore& parameters, const float* gradients,
                         const GradientSquares& squares, double learning_rate, double gradient_scale) const;

  OptimizerOptions options_;
  std::vector<State> states_;
};

}  // namespace switchyard
