#include "train/optimizer.hpp"

#include <cmath>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "kernels/api/optimizer.hpp"

namespace switchyard {

Optimizer::Optimizer(const Context& context, const OptimizerOptions& options, Index size) : options_(options) {
  std::vector<std::string> names;
  if (options.kind == "adam" || options.kind == "adamw") {
    names = {"first_moment", "second_moment"};
  } else if (options.kind == "sgd") {
    names = {"velocity"};
  } else if (options.kind != "normalized") {
    fail_usage("train.optimizer: \"{}\" is not one of adam, adamw, sgd, normalized", options.kind);
  }
  for (const std::string& name : names) {
    states_.push_back({name, kernels::Array<float>(context.device, size)});
    states_.back().values.clear(context);
  }
}

void Optimizer::update(const Context& context, ParameterStore& parameters, const float* gradients,
                       const GradientSquares& squares, double learning_rate, double gradient_scale, Index step) {
  if (options_.kind == "normalized")
    return update_normalized(context, parameters, gradients, squares, learning_rate, gradient_scale);
  if (options_.kind == "sgd") {
    kernels::sgd(context, {.size = parameters.trained_size(),
                           .parameters = parameters.values(),
                           .gradients = gradients,
                           .velocities = states_[0].values.data(),
                           .learning_rate = static_cast<float>(learning_rate),
                           .momentum = static_cast<float>(options_.momentum),
                           .weight_decay = static_cast<float>(options_.weight_decay),
                           .gradient_scale = static_cast<float>(gradient_scale)});
    return;
  }
  kernels::adam(context, {.size = parameters.trained_size(),
                          .parameters = parameters.values(),
                          .gradients = gradients,
                          .first_moments = states_[0].values.data(),
                          .second_moments = states_[1].values.data(),
                          .learning_rate = static_cast<float>(learning_rate),
                          .beta1 = static_cast<float>(options_.beta1),
                          .beta2 = static_cast<float>(options_.beta2),
                          .epsilon = static_cast<float>(options_.epsilon),
                          .weight_decay = static_cast<float>(options_.weight_decay),
                          .decoupled = options_.kind == "adamw",
                          .gradient_scale = static_cast<float>(gradient_scale),
                          .step = step});
}

namespace {

// The parameters of experts, those of each mixture together: "blocks.3.experts.w1" and "blocks.3.experts.b1".
std::vector<std::vector<ParameterId>> mixtures_of(const ParameterTable& table) {
  std::vector<std::vector<ParameterId>> mixtures;
  std::string newest;
  for (ParameterId id = 0; id < table.size(); ++id) {
    if (!table[id].trained || !table[id].per_expert) continue;
    const std::string name = table[id].name.substr(0, table[id].name.rfind('.'));
    if (mixtures.empty() || name != newest) mixtures.emplace_back();
    newest = name;
    mixtures.back().push_back(id);
  }
  return mixtures;
}

}  // namespace

void Optimizer::update_normalized(const Context& context, ParameterStore& parameters, const float* gradients,
                                  const GradientSquares& squares, double learning_rate, double gradient_scale) const {
  const auto descend = [&](Index first, Index size, double rate, double scale) {
    kernels::sgd(context, {.size = size,
                           .parameters = parameters.values() + first,
                           .gradients = gradients + first,
                           .learning_rate = static_cast<float>(rate),
                           .weight_decay = static_cast<float>(options_.weight_decay),
                           .gradient_scale = static_cast<float>(scale)});
  };
  descend(0, parameters.replicated_size(), learning_rate * options_.gate_rate, gradient_scale);
  const ParameterTable& table = parameters.table();
  for (const std::vector<ParameterId>& mixture : mixtures_of(table))
    for (Index expert = 0; expert < parameters.num_local_experts(); ++expert) {
      double sum_of_norms = 0;
      for (const ParameterId id : mixture)
        // As a float, which is 0 for norms below 1e-23: of such gradients, all but vanished, 1 / norm could be
        // infinite.
        sum_of_norms += std::sqrt(double{static_cast<float>(squares.of(id, expert))});
      if (sum_of_norms == 0) continue;
      for (const ParameterId id : mixture)
        descend(parameters.offset(id, expert), table[id].slice_size(), learning_rate, 1 / sum_of_norms);
    }
}

GradientSquares::GradientSquares(Device device, const ParameterStore& parameters) : parameters_(parameters) {
  std::size_t size = 0;
  for (ParameterId id = 0; id < parameters.table().size(); ++id) {
    first_.push_back(size);
    if (parameters.table()[id].trained) size += static_cast<std::size_t>(parameters.local_slices(id));
  }
  sums_.resize(size);
  device_sums_ = kernels::Array<double>(device, std::ssize(sums_));
}

kernels::HostCopy GradientSquares::sum(const Context& context, const float* gradients) {
  const ParameterTable& table = parameters_.table();
  double* sum = device_sums_.data();
  arrays_.clear();
  for (ParameterId id = 0; id < table.size(); ++id) {
    if (!table[id].trained) continue;
    for (Index slice = 0; slice < parameters_.local_slices(id); ++slice)
      arrays_.push_back({.size = table[id].slice_size(), .x = gradients + parameters_.offset(id, slice), .sum = sum++});
  }
  kernels::sum_of_squares(context, arrays_);
  return {sums_.data(), device_sums_.data(), device_sums_.size() * Index{sizeof(double)}};
}

double GradientSquares::norm(Communicator& expert_group) const {
  const ParameterTable& table = parameters_.table();
  double total = 0;
  std::vector<double> experts;  // (parameter, local expert)
  for (ParameterId id = 0; id < table.size(); ++id) {
    if (!table[id].trained) continue;
    for (Index slice = 0; slice < parameters_.local_slices(id); ++slice)
      if (table[id].per_expert)
        experts.push_back(of(id, slice));
      else
        total += of(id, slice);
  }
  if (experts.empty()) return std::sqrt(total);

  const auto owners = static_cast<std::size_t>(expert_group.size());
  std::vector<double> all(owners * experts.size());
  all_gather(expert_group, "gradient norm", experts.data(), static_cast<Index>(experts.size() * sizeof(double)),
             all.data());
  const auto local = static_cast<std::size_t>(parameters_.num_local_experts());
  for (std::size_t parameter = 0; parameter < experts.size() / local; ++parameter)
    for (std::size_t owner = 0; owner < owners; ++owner)
      for (std::size_t slice = 0; slice < local; ++slice)
        total += all[owner * experts.size() + parameter * local + slice];
  return std::sqrt(total);
}

}  // namespace switchyard
