#include "routing/gate_losses.hpp"

#include "kernels/api/elementwise.hpp"
#include "kernels/api/optimizer.hpp"

namespace switchyard {

double cv_squared(std::span<const float> values, std::vector<float>* gradient) {
  const auto count = static_cast<double>(values.size());
  double mean = 0, variance = 0;
  for (float value : values) mean += value / count;
  if (gradient) gradient->assign(values.size(), 0.0f);
  if (mean == 0) return 0;
  for (float value : values) variance += (value - mean) * (value - mean) / count;
  const double squared = variance / (mean * mean);
  if (gradient)
    for (std::size_t i = 0; i < values.size(); ++i)
      (*gradient)[i] = static_cast<float>(2 / (count * mean) * ((values[i] - mean) / mean - squared));
  return squared;
}

GateLosses::GateLosses(const GateLossWeights& weights, Index num_experts)
    : weights_(weights), num_experts_(num_experts) {}

std::vector<kernels::HostCopy> GateLosses::sum(const RouteInput& input, const RoutePlan& plan,
                                               const Measures& measures) {
  probabilities_.clear();
  importance_.clear();
  load_.clear();
  squares_ = 0;
  std::vector<kernels::HostCopy> copies;
  if (!input.training || plan.tokens == 0) return copies;
  if (weights_.balance > 0 && measures.all_allowed)
    copies.push_back(column_sums(input, plan.tokens, measures.probabilities, probabilities_));
  if (weights_.z > 0) {
    double* sum = input.arena.take<double>(1);
    kernels::sum_of_squares(input.context, {.size = plan.tokens, .x = measures.log_sum_exp, .sum = sum});
    copies.push_back({&squares_, sum, Index{sizeof(double)}});
  }
  if (weights_.importance > 0 && measures.all_allowed) {
    float* sums = input.arena.take<float>(num_experts_);
    float* entropy = input.arena.take<float>(1);
    kernels::route_statistics(input.context, {.tokens = plan.tokens,
                                              .num_experts = num_experts_,
                                              .top_k = plan.top_k,
                                              .experts = plan.experts,
                                              .weights = plan.weights,
                                              .weight_sums = sums,
                                              .entropy_sum = entropy});
    importance_.resize(static_cast<std::size_t>(num_experts_));
    copies.push_back({importance_.data(), sums, num_experts_ * Index{sizeof(float)}});
  }
  if (weights_.load > 0 && measures.all_allowed)
    copies.push_back(column_sums(input, plan.tokens, measures.load_probability, load_));
  return copies;
}

void GateLosses::measure(const RoutePlan& plan, AuxiliaryLosses* losses) {
  d_probability_.clear();
  d_importance_.clear();
  d_load_.clear();
  const auto tokens = static_cast<double>(plan.tokens), experts = static_cast<double>(num_experts_);
  if (!probabilities_.empty()) {
    double assignments = 0, loss = 0;
    for (std::int32_t count : plan.chosen) assignments += count;
    for (std::size_t e = 0; e < probabilities_.size(); ++e) {
      const double slope = weights_.balance * experts * plan.chosen[e] / (assignments * tokens);
      d_probability_.push_back(static_cast<float>(slope));
      loss += slope * double{probabilities_[e]};
    }
    losses->balance += loss;
  }
  if (squares_ != 0) losses->z += weights_.z * squares_ / tokens;
  const auto weighted_cv = [](double weight, const std::vector<float>& sums, std::vector<float>& gradient) {
    const double squared = cv_squared(sums, &gradient);
    for (float& value : gradient) value *= static_cast<float>(weight);
    return weight * squared;
  };
  if (!importance_.empty()) losses->importance += weighted_cv(weights_.importance, importance_, d_importance_);
  if (!load_.empty()) losses->load += weighted_cv(weights_.load, load_, d_load_);
}

void GateLosses::add_gradients(const RouteInput& input, double auxiliary_scale, kernels::GateBackward& backward) const {
  backward.d_probability_of_expert = upload(input, d_probability_, auxiliary_scale);
  backward.d_weight_of_expert = upload(input, d_importance_, auxiliary_scale);
  if (input.tokens() > 0)
    backward.z_scale = static_cast<float>(2 * weights_.z * auxiliary_scale / static_cast<double>(input.tokens()));
}

const float* GateLosses::load_gradient(const RouteInput& input, double auxiliary_scale) const {
  return upload(input, d_load_, auxiliary_scale);
}

kernels::HostCopy GateLosses::column_sums(const RouteInput& input, Index rows, const float* x,
                                          std::vector<float>& host) const {
  float* sums = input.arena.take<float>(num_experts_);
  kernels::column_sum(input.context, {.rows = rows, .cols = num_experts_, .x = x, .sums = sums});
  host.resize(static_cast<std::size_t>(num_experts_));
  return {host.data(), sums, num_experts_ * Index{sizeof(float)}};
}

const float* GateLosses::upload(const RouteInput& input, const std::vector<float>& gradient, double scale) {
  if (gradient.empty()) return nullptr;
  std::vector<float> scaled = gradient;
  for (float& value : scaled) value *= static_cast<float>(scale);
  const auto bytes = static_cast<Index>(scaled.size() * sizeof(float));
  float* device = input.arena.take<float>(static_cast<Index>(scaled.size()));
  kernels::copy_to_device(input.context, device, scaled.data(), bytes);
  return device;
}

}  // namespace switchyard
