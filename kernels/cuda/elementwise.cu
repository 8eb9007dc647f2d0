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

// Body(run, Function{}) for runs of one activation.
template <typename Arguments, typename Body>
void for_runs_of_function(std::span<const Arguments> segments, const Body& body) {
  const auto alike = [](const Arguments& a, const Arguments& b) {
    return a.cols == b.cols && a.activation == b.activation;
  };
  for_runs(segments, alike, [&](std::span<const Arguments> run) {
    with_function<Gelu>(run[0].activation, [&](auto function) { body(run, function); });
  });
}

}  // namespace

void bias_activation_dropout(const Context& context, std::span<const BiasActivationDropout> segments) {
  for_runs_of_function(segments, [&](std::span<const BiasActivationDropout> run, auto function) {
    std::vector<ColumnSegment<ActivationPass<decltype(function)>>> list;
    for (const BiasActivationDropout& s : run)
      list.push_back({s.rows, are_aligned(s.cols, s.x.values, s.bias, s.y.values), {s, factors_of(s.dropout)}});
    pass_columns_of_list<false>(context, run[0].cols, list);
  });
}

void bias_activation_dropout_backward(const Context& context, std::span<const BiasActivationDropoutBackward> segments) {
  for_runs_of_function(segments, [&](std::span<const BiasActivationDropoutBackward> run, auto function) {
    std::vector<ColumnSegment<ActivationBackwardPass<decltype(function)>>> list;
    for (const BiasActivationDropoutBackward& s : run)
      list.push_back({s.rows,
                      are_aligned(s.cols, s.x.values, s.bias, s.d_y.values, s.d_x.values),
                      {s, factors_of(s.dropout)},
                      {s.d_bias, s.cols}});
    pass_columns_of_list<true>(context, run[0].cols, list);
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
    sum_columns(context, args.rows, args.cols, aligned, pass, {args.d_bias, args.cols});
  else
    for_columns(context, args.rows, args.cols, aligned, pass);
}

void bias_add(const Context& context, const BiasAdd& args) {
  for_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x.values, args.bias, args.y.values),
              BiasAddPass{args});
}

}  // namespace switchyard::kernels::cuda
