#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

template <typename Function>
struct ActivationPass {
  BiasActivationDropout args;
  DropoutFactors dropout;

  template <typename Octet>
  __device__ Eight constants(const Octet& octet) const {
    return octet.load(args.bias);
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight& bias) const {
    Eight x = load(args.x, row, args.cols, octet);
    const Eight factors = factors_of_octet(dropout, row, octet);
    for (int i = 0; i < 8; ++i) x.at[i] = Function::value(x.at[i] + bias.at[i]) * factors.at[i];
    store(args.y, row, args.cols, octet, x);
    return {};
  }
};

template <typename Function>
struct ActivationBackwardPass {
  BiasActivationDropoutBackward args;
  DropoutFactors dropout;

  template <typename Octet>
  __device__ Eight constants(const Octet& octet) const {
    return octet.load(args.bias);
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight& bias) const {
    const Eight x = load(args.x, row, args.cols, octet);
    Eight d = load(args.d_y, row, args.cols, octet);
    const Eight factors = factors_of_octet(dropout, row, octet);
    for (int i = 0; i < 8; ++i) d.at[i] = d.at[i] * factors.at[i] * Function::slope(x.at[i] + bias.at[i]);
    store(args.d_x, row, args.cols, octet, d);
    return d;
  }
};

struct ResidualPass {
  BiasDropoutResidual args;
  DropoutFactors dropout;

  template <typename Octet>
  __device__ Eight constants(const Octet& octet) const {
    return args.bias ? octet.load(args.bias) : Eight{};
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight& bias) const {
    const Eight x = load(args.x, row, args.cols, octet);
    Eight y = args.residual ? octet.load(args.residual + row * args.cols) : Eight{};
    const Eight factors = factors_of_octet(dropout, row, octet);
    for (int i = 0; i < 8; ++i) y.at[i] = fmaf(x.at[i] + bias.at[i], factors.at[i], y.at[i]);
    octet.store(args.y + row * args.cols, y);
    return {};
  }
};

struct DropoutBackwardPass {
  DropoutBackward args;
  DropoutFactors dropout;

  template <typename Octet>
  __device__ Eight constants(const Octet&) const {
    return {};
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight&) const {
    Eight d = octet.load(args.d_y + row * args.cols);
    const Eight factors = factors_of_octet(dropout, row, octet);
    for (int i = 0; i < 8; ++i) d.at[i] *= factors.at[i];
    store(args.d_x, row, args.cols, octet, d);
    return d;
  }
};

struct BiasAddPass {
  BiasAdd args;

  template <typename Octet>
  __device__ Eight constants(const Octet& octet) const {
    return octet.load(args.bias);
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight& bias) const {
    Eight x = load(args.x, row, args.cols, octet);
    for (int i = 0; i < 8; ++i) x.at[i] += bias.at[i];
    store(args.y, row, args.cols, octet, x);
    return {};
  }
};

}  // namespace

void bias_activation_dropout(const Context& context, const BiasActivationDropout& args) {
  with_function<Gelu>(args.activation, [&](auto function) {
    for_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x.values, args.bias, args.y.values),
                ActivationPass<decltype(function)>{args, factors_of(args.dropout)});
  });
}

void bias_activation_dropout_backward(const Context& context, const BiasActivationDropoutBackward& args) {
  with_function<Gelu>(args.activation, [&](auto function) {
    sum_columns(context, args.rows, args.cols,
                are_aligned(args.cols, args.x.values, args.bias, args.d_y.values, args.d_x.values),
                ActivationBackwardPass<decltype(function)>{args, factors_of(args.dropout)},
                {args.d_bias, static_cast<int>(args.cols)});
  });
}

void bias_dropout_residual(const Context& context, const BiasDropoutResidual& args) {
  for_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x.values, args.bias, args.residual, args.y),
              ResidualPass{args, factors_of(args.dropout)});
}

void dropout_backward(const Context& context, const DropoutBackward& args) {
  const bool aligned = are_aligned(args.cols, args.d_y, args.d_x.values);
  const DropoutBackwardPass pass{args, factors_of(args.dropout)};
  if (args.d_bias)
    sum_columns(context, args.rows, args.cols, aligned, pass, {args.d_bias, static_cast<int>(args.cols)});
  else
    for_columns(context, args.rows, args.cols, aligned, pass);
}

void bias_add(const Context& context, const BiasAdd& args) {
  for_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x.values, args.bias, args.y.values),
              BiasAddPass{args});
}

}  // namespace switchyard::kernels::cuda
