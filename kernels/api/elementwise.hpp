// Passes over (rows, cols) activations, row-major and dense. Column sums add rows in blocks fixed by the shape. Of a
// list, as the segments of experts, each is what it is alone.
#pragma once

#include <span>

#include "core/context.hpp"
#include "kernels/api/dropout.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

// Gaussian error linear unit u/2 (1 + erf(u / sqrt 2)) (Hendrycks & Gimpel, 1606.08415); max(u, 0), whose derivative at
// 0 is taken as 0; u^3; u.
enum class Activation { kGelu, kRelu, kCube, kIdentity };

// y = dropout(activation(x + bias))
struct BiasActivationDropout {
  Index rows = 0, cols = 0;
  Activation activation = Activation::kGelu;
  Operand x{};                  // (rows, cols)
  const float* bias = nullptr;  // (cols)
  NewOperand y{};               // (rows, cols); may be x
  Dropout dropout{};
};
void bias_activation_dropout(const Context& context, std::span<const BiasActivationDropout> segments);
inline void bias_activation_dropout(const Context& context, const BiasActivationDropout& args) {
  bias_activation_dropout(context, std::span(&args, 1));
}

struct BiasActivationDropoutBackward {
  Index rows = 0, cols = 0;
  Activation activation = Activation::kGelu;
  Operand x{};                  // (rows, cols), as given to the forward pass
  const float* bias = nullptr;  // (cols)
  Operand d_y{};                // (rows, cols)
  NewOperand d_x{};             // (rows, cols); may be d_y
  float* d_bias = nullptr;      // (cols), overwritten (zeros where rows = 0)
  Dropout dropout{};
};
void bias_activation_dropout_backward(const Context& context, std::span<const BiasActivationDropoutBackward> segments);
inline void bias_activation_dropout_backward(const Context& context, const BiasActivationDropoutBackward& args) {
  bias_activation_dropout_backward(context, std::span(&args, 1));
}

// y = residual + dropout(x + bias)
struct BiasDropoutResidual {
  Index rows = 0, cols = 0;
  Operand x{};                      // (rows, cols)
  const float* bias = nullptr;      // (cols); null: zeros
  const float* residual = nullptr;  // (rows, cols); null: zeros
  float* y = nullptr;               // (rows, cols); may be residual or x's values
  Dropout dropout{};
};
void bias_dropout_residual(const Context& context, const BiasDropoutResidual& args);

// d_x = dropout(d_y), d_bias = its column sums; d_residual is d_y itself.
struct DropoutBackward {
  Index rows = 0, cols = 0;
  const float* d_y = nullptr;  // (rows, cols)
  NewOperand d_x{};            // (rows, cols); may be d_y
  float* d_bias = nullptr;     // (cols), overwritten; null: not wanted
  Dropout dropout{};
};
void dropout_backward(const Context& context, const DropoutBackward& args);

// y = x + bias
struct BiasAdd {
  Index rows = 0, cols = 0;
  Operand x{};                  // (rows, cols)
  const float* bias = nullptr;  // (cols)
  NewOperand y{};               // (rows, cols); may be x
};
void bias_add(const Context& context, const BiasAdd& args);

// sums[c] = sum over rows of x[r, c]
struct ColumnSum {
  Index rows = 0, cols = 0;
  Operand x{};            // (rows, cols)
  float* sums = nullptr;  // (cols), overwritten
};
void column_sum(const Context& context, std::span<const ColumnSum> segments);
inline void column_sum(const Context& context, const ColumnSum& args) { column_sum(context, std::span(&args, 1)); }

}  // namespace switchyard::kernels
