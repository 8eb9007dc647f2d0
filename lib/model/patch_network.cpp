// Two-layer convolutional networks over rows of patches that do not overlap, x_1 ... x_P (Chen et al., 2208.02813),
// alone or as the experts of a mixture:
//   y_c = sum over p and the filters j of class c of activation(w_j . x_p + b_j)
// w (filters, width / P), b (filters); of the F filters the first F / classes belong to class 0, and so on. The second
// layer, those sums, is not trained. Weights start as PyTorch's Conv1d, uniform over +-1 / sqrt(width / P); experts' at
// a thousandth of that. No dropout and no residual.
#include <array>
#include <cmath>

#include "kernels/api/patch_conv.hpp"
#include "model/experts.hpp"

namespace switchyard {

namespace {

constexpr double kStartOfExperts = 1e-3;

Initializer start(const FfnOptions& options, double scale) {
  const auto fan_in = static_cast<double>(options.width / options.patches);
  return {Initializer::Kind::kUniform, scale / std::sqrt(fan_in), options.same_start};
}

// hidden (rows * patches, filters) = x w^T
kernels::LinearProducts convolution(const Pass& pass, const FfnOptions& options, Index rows) {
  return pass.linear(rows * options.patches, options.width / options.patches, options.hidden);
}

Index hidden_size(const FfnOptions& options, Index rows) { return rows * options.patches * options.hidden; }

void pool(const Pass& pass, const FfnOptions& options, Index rows, const float* hidden, const float* bias, float* y) {
  kernels::patch_pool(pass.context, {.rows = rows,
                                     .patches = options.patches,
                                     .filters = options.hidden,
                                     .classes = options.out,
                                     .activation = options.activation,
                                     .hidden = hidden,
                                     .bias = bias,
                                     .y = y});
}

// y (rows, out) of hidden, which the product computes.
float* convolve_and_pool(const Pass& pass, const FfnOptions& options, Index rows, const kernels::Gemm& hidden,
                         const float* bias) {
  float* y = pass.arena.take<float>(rows * options.out);
  kernels::gemm(pass.context, hidden);
  pool(pass, options, rows, hidden.c, bias, y);
  return y;
}

// hidden becomes its gradient.
void pool_backward(const Pass& pass, const FfnOptions& options, Index rows, const float* bias, const float* d_y,
                   float* hidden, float* d_bias) {
  kernels::patch_pool_backward(pass.context, {.rows = rows,
                                              .patches = options.patches,
                                              .filters = options.hidden,
                                              .classes = options.out,
                                              .activation = options.activation,
                                              .hidden = hidden,
                                              .bias = bias,
                                              .d_y = d_y,
                                              .d_hidden = hidden,
                                              .d_bias = d_bias});
}

// One network for all rows.
class PatchNetwork final : public Ffn {
 public:
  PatchNetwork(const FfnOptions& options, ParameterTable& table) : options_(options) {
    const std::string name = options.prefix + ".ffn";
    weight_ = table.add({name + ".w1", {options.hidden, options.width / options.patches}, false, start(options, 1)});
    bias_ = table.add({name + ".b1", {options.hidden}, false, start(options, 1)});
  }

  // Products read patches, not rows.
  InputForm prepare(const Pass&, const Input&) override { return {kernels::Readers::kOthers}; }

  float* forward(const Pass& pass, const Input& input, AuxiliaryLosses*) override {
    input_ = input;
    hidden_ = pass.arena.take<float>(hidden_size(options_, input.rows()));
    const kernels::LinearProducts products = convolution(pass, options_, input.rows());
    return convolve_and_pool(pass, options_, input.rows(),
                             pass.by_weight(products.forward(input.x.values, pass.parameters.value(weight_), hidden_)),
                             pass.parameters.value(bias_));
  }

  InputGradient backward(const Pass& pass, const float* d_y, bool wants_d_x) override {
    float* d_x = wants_d_x ? pass.arena.take<float>(input_.rows() * options_.width) : nullptr;
    const kernels::ArenaScope scope(pass.arena);
    const auto d_bias = pass.gradients->leaf(bias_, pass.arena);
    pool_backward(pass, options_, input_.rows(), pass.parameters.value(bias_), d_y, hidden_, d_bias.data);
    pass.gradients->add(pass.context, d_bias);
    const kernels::LinearProducts products = convolution(pass, options_, input_.rows());
    kernels::gemm(pass.context,
                  pass.gradients->leaf_product(weight_, products.weight_gradient(hidden_, input_.x.values)));
    if (d_x)
      kernels::gemm(pass.context,
                    pass.by_weight(products.input_gradient(hidden_, pass.parameters.value(weight_), d_x)));
    return {d_x};
  }

 private:
  FfnOptions options_;
  ParameterId weight_ = -1, bias_ = -1;
  Input input_;              // of the microbatch at hand
  float* hidden_ = nullptr;  // (rows, patches, filters): without bias; in the backward pass its gradient
};

class PatchExperts final : public Experts {
 public:
  PatchExperts(const FfnOptions& options, ParameterTable& table) : options_(options) {
    const std::string name = options.prefix + ".experts";
    const Initializer initializer = start(options, kStartOfExperts);
    const Index experts = options.num_experts, filters = options.hidden;
    weight_ = table.add({name + ".w1", {experts, filters, options.width / options.patches}, true, initializer});
    bias_ = table.add({name + ".b1", {experts, filters}, true, initializer});
  }

  kernels::Readers readers() const override { return kernels::Readers::kOthers; }

  kernels::NewOperand forward(const Pass& pass, const std::vector<Segment>& segments, const kernels::Operand& x,
                              const std::int32_t*, kernels::Readers) override {
    segments_ = segments;
    x_ = x.values;
    hidden_ = pass.arena.take<float>(hidden_size(options_, num_rows()));
    float* y = pass.arena.take<float>(num_rows() * options_.out);
    products_.clear();
    for (const Segment& s : segments_)
      products_.push_back(convolution(pass, options_, s.rows)
                              .forward(rows_of(s), pass.parameters.value(weight_, s.local_expert), hidden_of(s)));
    pass.by_weights(products_);
    kernels::gemm(pass.context, products_);
    for (const Segment& s : segments_)
      pool(pass, options_, s.rows, hidden_of(s), pass.parameters.value(bias_, s.local_expert),
           y + s.first_row * options_.out);
    return y;
  }

  kernels::NewOperand backward(const Pass& pass, const kernels::Operand& d_y, bool wants_d_x) override {
    float* d_x = wants_d_x ? pass.arena.take<float>(num_rows() * options_.width) : nullptr;
    const kernels::ArenaScope scope(pass.arena);
    ExpertLeaves d_bias;
    std::vector<kernels::Gemm> of_weights;  // their gradients
    products_.clear();
    for (const Segment& s : segments_) {
      if (!ExpertLeaves::has_rows(pass, std::array{weight_, bias_}, s)) continue;
      pool_backward(pass, options_, s.rows, pass.parameters.value(bias_, s.local_expert),
                    d_y.values + s.first_row * options_.out, hidden_of(s), d_bias.take(pass, bias_, s));
      const kernels::LinearProducts products = convolution(pass, options_, s.rows);
      of_weights.push_back(ExpertLeaves::product(pass, weight_, s, products.weight_gradient(hidden_of(s), rows_of(s))));
      if (wants_d_x)
        products_.push_back(products.input_gradient(hidden_of(s), pass.parameters.value(weight_, s.local_expert),
                                                    d_x + s.first_row * options_.width));
    }
    pass.by_weights(products_);
    products_.insert(products_.end(), of_weights.begin(), of_weights.end());
    kernels::gemm(pass.context, products_);
    d_bias.add(pass);
    return d_x;
  }

  void average(const Pass& pass) override { average_over_experts(pass, std::array{weight_, bias_}, averages_); }

  float* forward_average(const Pass& pass, const Ffn::Input& input) const override {
    float* hidden = pass.arena.take<float>(hidden_size(options_, input.rows()));
    const kernels::LinearProducts products = convolution(pass, options_, input.rows());
    return convolve_and_pool(pass, options_, input.rows(),
                             products.forward(input.x.values, averages_[0].data(), hidden), averages_[1].data());
  }

 private:
  Index num_rows() const { return segments_.empty() ? 0 : segments_.back().first_row + segments_.back().rows; }
  const float* rows_of(const Segment& s) const { return x_ + s.first_row * options_.width; }
  float* hidden_of(const Segment& s) const { return hidden_ + hidden_size(options_, s.first_row); }

  FfnOptions options_;
  ParameterId weight_ = -1, bias_ = -1;
  std::array<kernels::Array<float>, 2> averages_;  // of weight and bias

  // Of the segments at hand:
  std::vector<Segment> segments_;
  const float* x_ = nullptr;  // (rows, width)
  float* hidden_ = nullptr;   // (rows, patches, filters): without bias; in the backward pass its gradient
  std::vector<kernels::Gemm> products_;
};

}  // namespace

std::unique_ptr<Ffn> make_patch_network(const FfnOptions& options, ParameterTable& table) {
  return std::make_unique<PatchNetwork>(options, table);
}

std::unique_ptr<Experts> make_patch_experts(const FfnOptions& options, ParameterTable& table) {
  return std::make_unique<PatchExperts>(options, table);
}

}  // namespace switchyard
