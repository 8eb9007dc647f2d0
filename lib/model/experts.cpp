#include "model/experts.hpp"

#include <array>
#include <cmath>

#include "comm/collectives.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard {

namespace {

// Feed-forward networks.
class FfnExperts final : public Experts {
 public:
  FfnExperts(const FfnOptions& options, ParameterTable& table);

  kernels::Readers readers() const override { return kernels::Readers::kProducts; }
  kernels::NewOperand forward(const Pass& pass, const std::vector<Segment>& segments, const kernels::Operand& x,
                              const std::int32_t* ids, kernels::Readers readers_of_y) override;
  kernels::NewOperand backward(const Pass& pass, const kernels::Operand& d_y, bool wants_d_x) override;
  void average(const Pass& pass) override { average_over_experts(pass, ids_of_all_, averages_); }
  float* forward_average(const Pass& pass, const Ffn::Input& input) const override;

 private:
  // Room for all segments, however many are empty now.
  void reserve() {
    products_.reserve(2 * segments_.size());
    of_weights_.reserve(segments_.size());
    activations_.reserve(segments_.size());
    activations_backward_.reserve(segments_.size());
    sums_.reserve(segments_.size());
  }
  kernels::Dropout dropout(const Pass& pass, const Segment& segment) const;

  FfnOptions options_;
  ParameterId w1_, b1_, w2_, b2_;
  std::array<ParameterId, 4> ids_of_all_;
  std::array<kernels::Array<float>, 4> averages_;  // of w1, b1, w2, b2

  // Of the segments at hand; rows lie by segment.
  std::vector<Segment> segments_;
  Index num_rows_ = 0;
  kernels::Operand x_;                                // (rows, width)
  const std::int32_t* ids_ = nullptr;                 // (rows)
  kernels::NewOperand hidden_;                        // (rows, hidden): without bias
  kernels::NewOperand activated_;                     // (rows, hidden)
  std::vector<kernels::Gemm> products_, of_weights_;  // the latter: weights' gradients
  std::vector<kernels::BiasActivationDropout> activations_;
  std::vector<kernels::BiasActivationDropoutBackward> activations_backward_;
  std::vector<kernels::ColumnSum> sums_;
};

FfnExperts::FfnExperts(const FfnOptions& options, ParameterTable& table) : options_(options) {
  const Index experts = options.num_experts, width = options.width, out = options.out, hidden = options.hidden;
  const auto uniform = [&](Index in) {
    return Initializer{Initializer::Kind::kUniform, 1 / std::sqrt(static_cast<double>(in)), options.same_start};
  };
  const std::string name = options.prefix + ".experts";
  w1_ = table.add({name + ".w1", {experts, hidden, width}, true, uniform(width)});
  b1_ = table.add({name + ".b1", {experts, hidden}, true, uniform(width)});
  w2_ = table.add({name + ".w2", {experts, out, hidden}, true, uniform(hidden)});
  b2_ = table.add({name + ".b2", {experts, out}, true, uniform(hidden)});
  ids_of_all_ = {w1_, b1_, w2_, b2_};
}

kernels::NewOperand FfnExperts::forward(const Pass& pass, const std::vector<Segment>& segments,
                                        const kernels::Operand& x, const std::int32_t* ids,
                                        kernels::Readers readers_of_y) {
  segments_ = segments;
  reserve();
  num_rows_ = segments.empty() ? 0 : segments.back().first_row + segments.back().rows;
  x_ = x;
  ids_ = ids;
  const Index width = options_.width, out = options_.out, hidden = options_.hidden;
  hidden_ = pass.operand(num_rows_, hidden);
  activated_ = pass.operand(num_rows_, hidden);
  const kernels::NewOperand y = pass.operand(num_rows_, out, readers_of_y);
  products_.clear();
  activations_.clear();
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    products_.push_back(pass.linear(s.rows, width, hidden)
                            .forward(x.from_row(s.first_row, width), pass.parameters.value(w1_, s.local_expert),
                                     hidden_.from_row(s.first_row, hidden)));
    activations_.push_back({.rows = s.rows,
                            .cols = hidden,
                            .activation = options_.activation,
                            .x = hidden_.from_row(s.first_row, hidden),
                            .bias = pass.parameters.value(b1_, s.local_expert),
                            .y = activated_.from_row(s.first_row, hidden),
                            .dropout = dropout(pass, s)});
  }
  pass.by_weights(products_);
  kernels::gemm(pass.context, products_);
  kernels::bias_activation_dropout(pass.context, activations_);

  products_.clear();
  for (const Segment& s : segments_)
    if (s.rows > 0)
      products_.push_back(pass.linear(s.rows, hidden, out)
                              .forward(activated_.from_row(s.first_row, hidden),
                                       pass.parameters.value(w2_, s.local_expert), y.from_row(s.first_row, out),
                                       pass.parameters.value(b2_, s.local_expert)));
  pass.by_weights(products_);
  kernels::gemm(pass.context, products_);
  return y;
}

kernels::NewOperand FfnExperts::backward(const Pass& pass, const kernels::Operand& d_y, bool wants_d_x) {
  const Index width = options_.width, out = options_.out, hidden = options_.hidden;
  const kernels::NewOperand d_x = wants_d_x ? pass.operand(num_rows_, width) : kernels::NewOperand{};
  const kernels::ArenaScope scope(pass.arena);
  // d_w2 = d_y^T activated and d_activated = d_y w2, which becomes d_hidden in place
  const kernels::NewOperand d_hidden = pass.operand(num_rows_, hidden);
  ExpertLeaves d_b2, d_b1;
  products_.clear();
  of_weights_.clear();
  sums_.clear();
  for (const Segment& s : segments_) {
    if (!ExpertLeaves::has_rows(pass, ids_of_all_, s)) continue;
    const kernels::Operand d_out = d_y.from_row(s.first_row, out);
    const kernels::LinearProducts second = pass.linear(s.rows, hidden, out);
    of_weights_.push_back(
        ExpertLeaves::product(pass, w2_, s, second.weight_gradient(d_out, activated_.from_row(s.first_row, hidden))));
    products_.push_back(second.input_gradient(d_out, pass.parameters.value(w2_, s.local_expert),
                                              d_hidden.from_row(s.first_row, hidden)));
    sums_.push_back({.rows = s.rows, .cols = out, .x = d_out, .sums = d_b2.take(pass, b2_, s)});
  }
  pass.by_weights(products_);
  products_.insert(products_.end(), of_weights_.begin(), of_weights_.end());
  kernels::column_sum(pass.context, sums_);
  kernels::gemm(pass.context, products_);
  d_b2.add(pass);

  // d_w1 = d_hidden^T x and d_x = d_hidden w1
  products_.clear();
  of_weights_.clear();
  activations_backward_.clear();
  for (const Segment& s : segments_) {
    if (s.rows == 0) continue;
    const kernels::NewOperand d_segment = d_hidden.from_row(s.first_row, hidden);
    activations_backward_.push_back({.rows = s.rows,
                                     .cols = hidden,
                                     .activation = options_.activation,
                                     .x = hidden_.from_row(s.first_row, hidden),
                                     .bias = pass.parameters.value(b1_, s.local_expert),
                                     .d_y = d_segment,
                                     .d_x = d_segment,
                                     .d_bias = d_b1.take(pass, b1_, s),
                                     .dropout = dropout(pass, s)});
    const kernels::LinearProducts first = pass.linear(s.rows, width, hidden);
    of_weights_.push_back(
        ExpertLeaves::product(pass, w1_, s, first.weight_gradient(d_segment, x_.from_row(s.first_row, width))));
    if (wants_d_x)
      products_.push_back(first.input_gradient(d_segment, pass.parameters.value(w1_, s.local_expert),
                                               d_x.from_row(s.first_row, width)));
  }
  kernels::bias_activation_dropout_backward(pass.context, activations_backward_);
  pass.by_weights(products_);
  products_.insert(products_.end(), of_weights_.begin(), of_weights_.end());
  kernels::gemm(pass.context, products_);
  d_b1.add(pass);
  return d_x;
}

float* FfnExperts::forward_average(const Pass& pass, const Ffn::Input& input) const {
  const FfnWeights averages{averages_[0].data(), averages_[1].data(), averages_[2].data(), averages_[3].data()};
  FfnActivations unused;
  return feed_forward(pass, options_, averages, input, {}, unused);
}

kernels::Dropout FfnExperts::dropout(const Pass& pass, const Segment& segment) const {
  kernels::Dropout dropout = pass.dropout_for(Purpose::kFfnDropout, options_.layer, 0);
  if (pass.training && options_.expert_dropout) dropout.probability = static_cast<float>(*options_.expert_dropout);
  // A token's experts draw apart from each other.
  constexpr Index kMostLayers = 1024, kMostExperts = (Index{1} << 24) / kMostLayers;
  const Index expert = pass.parameters.first_expert() + segment.local_expert;
  dropout.key.layer += static_cast<std::uint32_t>(expert % kMostExperts * kMostLayers);
  dropout.row_ids = ids_ + segment.first_row;
  return dropout;
}

}  // namespace

void average_over_experts(const Context& context, Communicator& expert_group, const ParameterStore& parameters,
                          ParameterId id, float* scratch, float* mean) {
  const ParameterSpec& spec = parameters.table()[id];
  gather_arrays(context, expert_group, "average of experts", parameters.value(id),
                parameters.num_local_experts() * spec.slice_size() * Index{sizeof(float)}, scratch);
  kernels::mean(context, {.count = spec.num_slices(), .size = spec.slice_size(), .x = scratch, .mean = mean});
}

void average_over_experts(const Pass& pass, std::span<const ParameterId> ids, std::span<kernels::Array<float>> means) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const kernels::ArenaScope scope(pass.arena);
    const ParameterSpec& spec = pass.parameters.table()[ids[i]];
    if (means[i].size() == 0) means[i] = kernels::Array<float>(pass.context.device, spec.slice_size());
    average_over_experts(pass.context, pass.expert_group, pass.parameters, ids[i], pass.arena.take<float>(spec.size()),
                         means[i].data());
  }
}

bool ExpertLeaves::has_rows(const Pass& pass, std::span<const ParameterId> ids, const Segment& segment) {
  if (segment.rows > 0) return true;
  for (ParameterId id : ids) pass.gradients->skip_expert(pass.context, id, segment.local_expert, segment.source);
  return false;
}

float* ExpertLeaves::take(const Pass& pass, ParameterId id, const Segment& segment) {
  leaves_.push_back(pass.gradients->expert_leaf(id, segment.local_expert, segment.source, pass.arena));
  return leaves_.back().data;
}

void ExpertLeaves::add(const Pass& pass) {
  for (const GradientSums::Leaf& leaf : leaves_) pass.gradients->add(pass.context, leaf);
}

kernels::Gemm ExpertLeaves::product(const Pass& pass, ParameterId id, const Segment& segment,
                                    const kernels::Gemm& product) {
  return pass.gradients->expert_leaf_product(id, segment.local_expert, segment.source, product);
}

std::unique_ptr<Experts> make_ffn_experts(const FfnOptions& options, ParameterTable& table) {
  return std::make_unique<FfnExperts>(options, table);
}

std::unique_ptr<Experts> make_experts(const FfnOptions& options, ParameterTable& table) {
  return options.patches > 0 ? make_patch_experts(options, table) : make_ffn_experts(options, table);
}

}  // namespace switchyard
