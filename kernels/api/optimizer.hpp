// Flat arrays of parameters. Sums run over blocks of a fixed size, so that they do not depend on threads.
#pragma once

#include <array>
#include <span>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// Adam (Kingma & Ba, 1412.6980) with weight decay added to the gradient (as torch.optim.Adam), or decoupled (AdamW,
// Loshchilov & Hutter, 1711.05101). g = gradient_scale gradient + 0 (a negative zero becomes a positive one).
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p -= learning_rate / (1 - beta1^step) * m / (sqrt(v / (1 - beta2^step)) + epsilon)
struct Adam {
  Index size = 0;
  float* parameters = nullptr;
  const float* gradients = nullptr;
  float* first_moments = nullptr;
  float* second_moments = nullptr;
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weight_decay = 0;
  bool decoupled = false;
  float gradient_scale = 1;  // clipping
  Index step = 1;            // from 1
};
void adam(const Context& context, const Adam& args);

// SGD with momentum, as torch.optim.SGD: g += weight_decay p;  velocity = momentum velocity + g;  p -= learning_rate
// velocity.
struct Sgd {
  Index size = 0;
  float* parameters = nullptr;
  const float* gradients = nullptr;
  float* velocities = nullptr;  // null: no momentum
  float learning_rate = 0, momentum = 0, weight_decay = 0;
  float gradient_scale = 1;
};
void sgd(const Context& context, const Sgd& args);

// *sum = sum of x^2 in double.
struct SumOfSquares {
  Index size = 0;
  const float* x = nullptr;
  double* sum = nullptr;  // device memory, as x
};
void sum_of_squares(const Context& context, std::span<const SumOfSquares> arrays);
inline void sum_of_squares(const Context& context, const SumOfSquares& args) {
  sum_of_squares(context, std::span(&args, 1));
}

}  // namespace switchyard::kernels
