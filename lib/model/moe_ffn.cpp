// A mixture of experts: each token goes to the expert that the router chose and comes back scaled by its weight.
//   route -> dispatch -> exchange -> one pair of products per segment -> exchange -> combine
// A segment is the tokens that one source microbatch sends to one expert; gradients of an expert's weights are leaves
// of the tree of their source rank.
#include <cmath>
#include <optional>
#include <vector>

#include "comm/collectives.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/routing.hpp"
#include "model/ffn.hpp"
#include "routing/exchange.hpp"

namespace switchyard {

namespace {

class MoeFfn final : public Ffn {
 public:
  MoeFfn(const FfnOptions& options, ParameterTable& table) : options_(options) {
    const Index experts = options.num_experts, width = options.width, hidden = options.hidden;
    router_ = make_router(
        {options.router, options.granularity, experts, width, options.balance_loss, options.prefix + ".gate"}, table);
    const auto uniform = [&](Index in) {
      return Initializer{Initializer::Kind::kUniform, 1 / std::sqrt(static_cast<double>(in)), options.same_start};
    };
    const std::string name = options.prefix + ".experts";
    w1_ = table.add({name + ".w1", {experts, hidden, width}, true, uniform(width)});
    b1_ = table.add({name + ".b1", {experts, hidden}, true, uniform(width)});
    w2_ = table.add({name + ".w2", {experts, width, hidden}, true, uniform(hidden)});
    b2_ = table.add({name + ".b2", {experts, width}, true, uniform(hidden)});
  }

  float* forward(const Pass& pass, const Input& input, double* auxiliary_loss) override {
    input_ = input;
    if (!pass.training && options_.average_inference) {
      FfnActivations unused;
      return feed_forward(pass, options_, {average(0), average(1), average(2), average(3)}, input, unused);
    }
    plan_ = router_->route(route_input(pass), auxiliary_loss);
    exchange_.emplace(pass.context, pass.expert_group, plan_, pass.seconds);
    send_tokens(pass);
    run_experts(pass);
    slots_ = exchange_->to_tokens(pass.arena, outputs_, options_.width);

    float* y = pass.arena.take<float>(input.rows() * options_.width);
    kernels::combine(pass.context, {.tokens = plan_.tokens,
                                    .cols = options_.width,
                                    .top_k = plan_.top_k,
                                    .slots = slots_,
                                    .slot_of_assignment = plan_.slot_of_assignment,
                                    .weights = plan_.weights,
                                    .residual = input.residual,
                                    .y = y,
                                    .dropout = residual_dropout(pass)});
    return y;
  }

  void backward(const Pass& pass, const float* d_y, float* d_x) override {
    const kernels::ArenaScope scope(pass.arena);
    const Index width = options_.width;
    const bool wants_weights = router_->needs_weight_gradients();
    float* d_slots = pass.arena.take<float>(exchange_->num_slots() * width);
    float* d_weights = wants_weights ? pass.arena.take<float>(plan_.tokens * plan_.top_k) : nullptr;
    kernels::combine_backward(pass.context, {.tokens = plan_.tokens,
                                             .cols = width,
                                             .top_k = plan_.top_k,
                                             .d_y = d_y,
                                             .slots = slots_,
                                             .slot_of_assignment = plan_.slot_of_assignment,
                                             .weights = plan_.weights,
                                             .d_slots = d_slots,
                                             .d_weights = d_weights,
                                             .dropout = residual_dropout(pass)});

    const float* d_outputs = exchange_->to_experts(pass.arena, d_slots, width);
    float* d_received = run_experts_backward(pass, d_outputs);
    const float* d_sent = exchange_->to_tokens(pass.arena, d_received, width);
    kernels::dispatch_backward(pass.context, {.tokens = plan_.tokens,
                                              .cols = width,
                                              .top_k = plan_.top_k,
                                              .d_slots = d_sent,
                                              .slot_of_assignment = plan_.slot_of_assignment,
                                              .d_rows = d_x});
    if (wants_weights)
      router_->backward(route_input(pass), plan_, d_weights, pass.auxiliary_scale, d_x, *pass.gradients);
  }

  // Each of the four arrays averaged over all experts, in order, wherever they are.
  void prepare_evaluation(const Pass& pass) override {
    if (!options_.average_inference) return;
    averages_.resize(4);
    const ParameterId ids[] = {w1_, b1_, w2_, b2_};
    for (std::size_t i = 0; i < 4; ++i) {
      const kernels::ArenaScope scope(pass.arena);
      const Index size = pass.parameters.table()[ids[i]].slice_size();
      if (averages_[i].size() == 0) averages_[i] = kernels::Array<float>(pass.context.device, size);
      float* all = pass.arena.take<float>(options_.num_experts * size);
      require_memory(pass.expert_group, pass.context.device, "average of experts");
      all_gather(pass.expert_group, "average of experts", pass.parameters.value(ids[i]),
                 pass.parameters.num_local_experts() * size * Index{sizeof(float)}, all);
      kernels::mean(pass.context, {.count = options_.num_experts, .size = size, .x = all, .mean = averages_[i].data()});
    }
  }

  std::span<const std::int32_t> tokens_per_expert() const override { return plan_.tokens_per_expert; }

 private:
  RouteInput route_input(const Pass& pass) const {
    return {.context = pass.context,
            .arena = pass.arena,
            .parameters = pass.parameters,
            .x = input_.x,
            .samples = input_.samples,
            .tokens_per_sample = input_.tokens_per_sample,
            .first_sample = input_.first_sample,
            .layer = options_.layer,
            .step = pass.step,
            .seed = pass.seed,
            .training = pass.training};
  }

  kernels::Dropout residual_dropout(const Pass& pass) const {
    return pass.dropout_for(Purpose::kFfnResidualDropout, options_.layer, input_.first_row());
  }

  // Dropout inside an expert is keyed by the token's own identity, not by its slot.
  kernels::Dropout expert_dropout(const Pass& pass, const Segment& segment) const {
    kernels::Dropout dropout = pass.dropout_for(Purpose::kFfnDropout, options_.layer, 0);
    dropout.row_ids = received_ids_ + segment.first_row;
    return dropout;
  }

  const float* average(std::size_t i) const { return averages_[i].data(); }

  void send_tokens(const Pass& pass) {
    const Index num_slots = exchange_->num_slots();
    float* sorted = pass.arena.take<float>(num_slots * options_.width);
    auto* ids = pass.arena.take<std::int32_t>(num_slots);
    kernels::dispatch(pass.context, {.num_slots = num_slots,
                                     .cols = options_.width,
                                     .top_k = plan_.top_k,
                                     .rows = input_.x,
                                     .assignment_of_slot = plan_.assignment_of_slot,
                                     .first_id = static_cast<std::int32_t>(input_.first_row()),
                                     .slots = sorted,
                                     .slot_ids = ids});
    received_ = exchange_->to_experts(pass.arena, sorted, options_.width);
    received_ids_ = exchange_->to_experts(pass.arena, ids, 1);
  }

  void run_experts(const Pass& pass) {
    const Index width = options_.width, hidden = options_.hidden, num_rows = exchange_->num_received();
    hidden_ = pass.arena.take<float>(num_rows * hidden);
    activated_ = pass.arena.take<float>(num_rows * hidden);
    outputs_ = pass.arena.take<float>(num_rows * width);
    products_.clear();
    for (const Segment& s : exchange_->segments())
      products_.push_back(
          pass.by_weight(pass.linear(s.rows, width, hidden)
                             .forward(received_ + s.first_row * width, pass.parameters.value(w1_, s.local_expert),
                                      hidden_ + s.first_row * hidden)));
    kernels::gemm(pass.context, products_);
    for (const Segment& s : exchange_->segments())
      kernels::bias_gelu_dropout(pass.context, {.rows = s.rows,
                                                .cols = hidden,
                                                .x = hidden_ + s.first_row * hidden,
                                                .bias = pass.parameters.value(b1_, s.local_expert),
                                                .y = activated_ + s.first_row * hidden,
                                                .dropout = expert_dropout(pass, s)});
    products_.clear();
    for (const Segment& s : exchange_->segments())
      products_.push_back(
          pass.by_weight(pass.linear(s.rows, hidden, width)
                             .forward(activated_ + s.first_row * hidden, pass.parameters.value(w2_, s.local_expert),
                                      outputs_ + s.first_row * width)));
    kernels::gemm(pass.context, products_);
    for (const Segment& s : exchange_->segments())
      kernels::bias_add(pass.context, {.rows = s.rows,
                                       .cols = width,
                                       .x = outputs_ + s.first_row * width,
                                       .bias = pass.parameters.value(b2_, s.local_expert)});
  }

  // d_outputs: (num_received, width) -> the gradient of received_, from the arena.
  float* run_experts_backward(const Pass& pass, const float* d_outputs) {
    const Index width = options_.width, hidden = options_.hidden, num_rows = exchange_->num_received();
    float* d_hidden = pass.arena.take<float>(num_rows * hidden);
    float* d_received = pass.arena.take<float>(num_rows * width);
    // d_w2 = d_out^T activated and d_activated = d_out w2
    const kernels::ArenaScope scope(pass.arena);
    begin_leaves();
    for (const Segment& s : exchange_->segments()) {
      if (skip_if_empty(pass, s)) continue;
      const float* d_out = d_outputs + s.first_row * width;
      const kernels::LinearProducts second = pass.linear(s.rows, hidden, width);
      products_.push_back(leaf_product(pass, w2_, s, second.weight_gradient(d_out, activated_ + s.first_row * hidden)));
      products_.push_back(pass.by_weight(
          second.input_gradient(d_out, pass.parameters.value(w2_, s.local_expert), d_hidden + s.first_row * hidden)));
      kernels::column_sum(pass.context, {.rows = s.rows, .cols = width, .x = d_out, .sums = new_leaf(pass, b2_, s)});
    }
    kernels::gemm(pass.context, products_);
    add_leaves(pass);

    // d_w1 = d_hidden^T x and d_x = d_hidden w1
    begin_leaves();
    for (const Segment& s : exchange_->segments()) {
      if (s.rows == 0) continue;
      float* d_segment = d_hidden + s.first_row * hidden;
      kernels::bias_gelu_dropout_backward(pass.context, {.rows = s.rows,
                                                         .cols = hidden,
                                                         .x = hidden_ + s.first_row * hidden,
                                                         .bias = pass.parameters.value(b1_, s.local_expert),
                                                         .d_y = d_segment,
                                                         .d_x = d_segment,
                                                         .d_bias = new_leaf(pass, b1_, s),
                                                         .dropout = expert_dropout(pass, s)});
      const kernels::LinearProducts first = pass.linear(s.rows, width, hidden);
      products_.push_back(
          leaf_product(pass, w1_, s, first.weight_gradient(d_segment, received_ + s.first_row * width)));
      products_.push_back(pass.by_weight(first.input_gradient(d_segment, pass.parameters.value(w1_, s.local_expert),
                                                              d_received + s.first_row * width)));
    }
    kernels::gemm(pass.context, products_);
    add_leaves(pass);
    return d_received;
  }

  bool skip_if_empty(const Pass& pass, const Segment& segment) {
    if (segment.rows > 0) return false;
    for (ParameterId id : {w1_, b1_, w2_, b2_})
      pass.gradients->skip_expert(pass.context, id, segment.local_expert, segment.source);
    return true;
  }

  void begin_leaves() {
    products_.clear();
    leaves_.clear();
  }

  float* new_leaf(const Pass& pass, ParameterId id, const Segment& segment) {
    leaves_.push_back(pass.gradients->expert_leaf(id, segment.local_expert, segment.source, pass.arena));
    return leaves_.back().data;
  }

  static kernels::Gemm leaf_product(const Pass& pass, ParameterId id, const Segment& segment,
                                    const kernels::Gemm& product) {
    return pass.gradients->expert_leaf_product(id, segment.local_expert, segment.source, product);
  }

  void add_leaves(const Pass& pass) {
    for (const GradientSums::Leaf& leaf : leaves_) pass.gradients->add(pass.context, leaf);
  }

  FfnOptions options_;
  std::unique_ptr<Router> router_;
  ParameterId w1_, b1_, w2_, b2_;
  std::vector<kernels::Array<float>> averages_;  // of w1, b1, w2, b2

  // Of the microbatch at hand; rows of received_, hidden_, activated_ and outputs_ lie by segment.
  Input input_;
  RoutePlan plan_;
  std::optional<Exchange> exchange_;
  float* received_ = nullptr;             // (num_received, width)
  std::int32_t* received_ids_ = nullptr;  // (num_received)
  float* hidden_ = nullptr;               // (num_received, hidden): without bias
  float* activated_ = nullptr;            // (num_received, hidden)
  float* outputs_ = nullptr;              // (num_received, width)
  float* slots_ = nullptr;                // (num_slots, width): outputs back at their tokens' rank
  std::vector<kernels::Gemm> products_;
  std::vector<GradientSums::Leaf> leaves_;
};

}  // namespace

std::unique_ptr<Ffn> make_moe_ffn(const FfnOptions& options, ParameterTable& table) {
  return std::make_unique<MoeFfn>(options, table);
}

}  // namespace switchyard
