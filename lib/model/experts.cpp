#include "model/experts.hpp"

#include <cmath>

#include "comm/collectives.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard {

Experts::Experts(const FfnOptions& options, ParameterTable& table) : options_(options) {
  const Index experts = options.num_experts, width = options.width, out = options.out, hidden = options.hidden;
  const auto uniform = [&](Index in) {
    return Initializer{Initializer::Kind::kUniform, 1 / std::sqrt(static_cast<double>(in)), options.same_start};
  };
  const std::string name = options.prefix + ".experts";
  w1_ = table.add({name + ".w1", {experts, hidden, width}, true, uniform(width)});
  b1_ = table.add({name + ".b1", {experts, hidden}, true, uniform(width)});
  w2_ = table.add({name + ".w2", {experts, out, hidden}, true, uniform(hidden)});
  b2_ = table.add({name + ".b2", {experts, out}, true, uniform(hidden)});
}

float* Experts::forward(const Pass& pass, const std::vector<Segment>& segments, const float* x,
                        const std::int32_t* ids) {
  segments_ = segments;
  num_rows_ = segments.empty() ? 0 : segments.back().first_row + segments.back().rows;
  x_ = x;
  ids_ = ids;
  const Index width = options_.width, out = options_.out, hidden = options_.hidden;
  hidden_ = pass.arena.take<float>(num_rows_ * hidden);
  activated_ = pass.arena.take<float>(num_rows_ * hidden);
  float* y = pass.arena.take<float>(num_rows_ * out);
  products_.clear();
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    products_.push_back(pass.by_weight(pass.linear(s.rows, width, hidden)
                                           .forward(x + s.first_row * width, pass.parameters.value(w1_, s.local_expert),
                                                    hidden_ + s.first_row * hidden)));
  }
  kernels::gemm(pass.context, products_);
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    kernels::bias_activation_dropout(pass.context, {.rows = s.rows,
                                                    .cols = hidden,
                                                    .activation = options_.activation,
                                                    .x = hidden_ + s.first_row * hidden,
                                                    .bias = pass.parameters.value(b1_, s.local_expert),
                                                    .y = activated_ + s.first_row * hidden,
                                                    .dropout = dropout(pass, s)});
  }
  products_.clear();
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    products_.push_back(
        pass.by_weight(pass.linear(s.rows, hidden, out)
                           .forward(activated_ + s.first_row * hidden, pass.parameters.value(w2_, s.local_expert),
                                    y + s.first_row * out)));
  }
  kernels::gemm(pass.context, products_);
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    kernels::bias_add(
        pass.context,
        {.rows = s.rows, .cols = out, .x = y + s.first_row * out, .bias = pass.parameters.value(b2_, s.local_expert)});
  }
  return y;
}

float* Experts::backward(const Pass& pass, const float* d_y) {
  const Index width = options_.width, out = options_.out, hidden = options_.hidden;
  float* d_hidden = pass.arena.take<float>(num_rows_ * hidden);
  float* d_x = pass.arena.take<float>(num_rows_ * width);
  // d_w2 = d_y^T activated and d_activated = d_y w2
  const kernels::ArenaScope scope(pass.arena);
  begin_leaves();
  for (const Segment& s : segments_) {
    if (skip_if_empty(pass, s)) continue;
    const float* d_out = d_y + s.first_row * out;
    const kernels::LinearProducts second = pass.linear(s.rows, hidden, out);
    products_.push_back(leaf_product(pass, w2_, s, second.weight_gradient(d_out, activated_ + s.first_row * hidden)));
    products_.push_back(pass.by_weight(
        second.input_gradient(d_out, pass.parameters.value(w2_, s.local_expert), d_hidden + s.first_row * hidden)));
    kernels::column_sum(pass.context, {.rows = s.rows, .cols = out, .x = d_out, .sums = new_leaf(pass, b2_, s)});
  }
  kernels::gemm(pass.context, products_);
  add_leaves(pass);

  // d_w1 = d_hidden^T x and d_x = d_hidden w1
  begin_leaves();
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    float* d_segment = d_hidden + s.first_row * hidden;
    kernels::bias_activation_dropout_backward(pass.context, {.rows = s.rows,
                                                             .cols = hidden,
                                                             .activation = options_.activation,
                                                             .x = hidden_ + s.first_row * hidden,
                                                             .bias = pass.parameters.value(b1_, s.local_expert),
                                                             .d_y = d_segment,
                                                             .d_x = d_segment,
                                                             .d_bias = new_leaf(pass, b1_, s),
                                                             .dropout = dropout(pass, s)});
    const kernels::LinearProducts first = pass.linear(s.rows, width, hidden);
    products_.push_back(leaf_product(pass, w1_, s, first.weight_gradient(d_segment, x_ + s.first_row * width)));
    products_.push_back(pass.by_weight(
        first.input_gradient(d_segment, pass.parameters.value(w1_, s.local_expert), d_x + s.first_row * width)));
  }
  kernels::gemm(pass.context, products_);
  add_leaves(pass);
  return d_x;
}

void average_over_experts(const Context& context, Communicator& expert_group, const ParameterStore& parameters,
                          ParameterId id, float* scratch, float* mean) {
  const ParameterSpec& spec = parameters.table()[id];
  require_memory(expert_group, context.device, "average of experts");
  all_gather(expert_group, "average of experts", parameters.value(id),
             parameters.num_local_experts() * spec.slice_size() * Index{sizeof(float)}, scratch);
  kernels::mean(context, {.count = spec.num_slices(), .size = spec.slice_size(), .x = scratch, .mean = mean});
}

void Experts::average(const Pass& pass) {
  const ParameterId ids[] = {w1_, b1_, w2_, b2_};
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const kernels::ArenaScope scope(pass.arena);
    const Index size = pass.parameters.table()[ids[i]].slice_size();
    if (averages_[i].size() == 0) averages_[i] = kernels::Array<float>(pass.context.device, size);
    average_over_experts(pass.context, pass.expert_group, pass.parameters, ids[i],
                         pass.arena.take<float>(options_.num_experts * size), averages_[i].data());
  }
}

FfnWeights Experts::averages() const {
  return {averages_[0].data(), averages_[1].data(), averages_[2].data(), averages_[3].data()};
}

kernels::Dropout Experts::dropout(const Pass& pass, const Segment& segment) const {
  kernels::Dropout dropout = pass.dropout_for(Purpose::kFfnDropout, options_.layer, 0);
  if (pass.training && options_.expert_dropout) dropout.probability = static_cast<float>(*options_.expert_dropout);
  // A token's experts draw apart from each other.
  constexpr Index kMostLayers = 1024, kMostExperts = (Index{1} << 24) / kMostLayers;
  const Index expert = pass.parameters.first_expert() + segment.local_expert;
  dropout.key.layer += static_cast<std::uint32_t>(expert % kMostExperts * kMostLayers);
  dropout.row_ids = ids_ + segment.first_row;
  return dropout;
}

bool Experts::skip_if_empty(const Pass& pass, const Segment& segment) {
  if (segment.rows > 0) return false;
  for (ParameterId id : {w1_, b1_, w2_, b2_})
    pass.gradients->skip_expert(pass.context, id, segment.local_expert, segment.source);
  return true;
}

void Experts::begin_leaves() {
  products_.clear();
  leaves_.clear();
}

float* Experts::new_leaf(const Pass& pass, ParameterId id, const Segment& segment) {
  leaves_.push_back(pass.gradients->expert_leaf(id, segment.local_expert, segment.source, pass.arena));
  return leaves_.back().data;
}

kernels::Gemm Experts::leaf_product(const Pass& pass, ParameterId id, const Segment& segment,
                                    const kernels::Gemm& product) {
  return pass.gradients->expert_leaf_product(id, segment.local_expert, segment.source, product);
}

void Experts::add_leaves(const Pass& pass) {
  for (const GradientSums::Leaf& leaf : leaves_) pass.gradients->add(pass.context, leaf);
}

}  // namespace switchyard
