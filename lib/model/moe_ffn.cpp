// A mixture of experts: each token goes to the experts that the router chose and comes back scaled by their weights.
//   route -> dispatch -> exchange -> experts -> exchange -> combine
// Where neither the router nor a shared expert reads x, routes are made before x is, and whoever makes x writes it to
// its slots: then there are no rows to dispatch. The gradient of x is handed on as it comes back, in slots.
// Shared experts, which every token visits, are one network as wide as all of them together:
//   y = residual + dropout(shared(x)) + dropout(sum over the chosen e of weight_e expert_e(x))
#include <algorithm>

#include "kernels/api/routing.hpp"
#include "model/experts.hpp"
#include "routing/gating_dropout.hpp"

namespace switchyard {

namespace {

constexpr FfnDropout kSharedDropout{Purpose::kSharedFfnDropout, Purpose::kSharedFfnResidualDropout};

RouterOptions router_options(const FfnOptions& options) {
  RouterOptions router = options.router;
  router.num_experts = options.num_experts;
  router.width = options.width;
  router.patches = std::max<Index>(1, options.patches);
  router.prefix = options.prefix + ".gate";
  return router;
}

class MoeFfn final : public Ffn {
 public:
  MoeFfn(const FfnOptions& options, ParameterTable& table)
      : options_(options),
        router_options_(router_options(options)),
        router_(make_router(router_options_, table)),
        experts_(make_experts(options, table)) {
    if (options.shared == 0) return;
    FfnOptions shared = options;
    shared.hidden = options.shared * options.hidden;
    shared_ = make_dense_ffn(shared, table, "shared", kSharedDropout);
  }

  bool host_waits() const override { return router_->host_waits(); }
  Index num_kinds_of_steps() const override { return router_->num_kinds_of_steps(); }
  Index kind_of_step(std::uint64_t seed, Index step) const override { return router_->kind_of_step(seed, step); }

  InputForm prepare(const Pass& pass, const Input& input) override {
    if (shared_ || router_->needs_x() || takes_average(pass)) return {readers(pass)};
    input_ = input;
    make_plan(pass, nullptr);
    return {experts_->readers(), slots_of_rows(), exchange_->num_slots()};
  }

  float* forward(const Pass& pass, const Input& input, AuxiliaryLosses* losses) override {
    input_ = input;
    if (shared_) input_.residual = shared_->forward(pass, input, losses);
    if (takes_average(pass)) return experts_->forward_average(pass, input_);
    if (input.slots.in_order()) make_plan(pass, losses);
    const kernels::Operand received = send_tokens(pass);
    // Without a residual the combined rows may be logits: those stay fp32.
    const kernels::Readers combining = input.residual ? kernels::Readers::kProducts : kernels::Readers::kOthers;
    const kernels::NewOperand outputs =
        experts_->forward(pass, exchange_->segments(), received, received_ids_, combining);
    outputs_ = exchange_->to_tokens(pass.arena, outputs, options_.out);

    float* y = pass.arena.take<float>(input.rows() * options_.out);
    kernels::combine(pass.context,
                     {.tokens = plan_.tokens,
                      .cols = options_.out,
                      .top_k = plan_.top_k,
                      .slots = outputs_,
                      .slot_of_assignment = plan_.slot_of_assignment,
                      .weights = plan_.weights,
                      .residual = input_.residual,
                      .y = y,
                      .dropout = residual_dropout(pass, input_, Purpose::kFfnResidualDropout, options_.layer)});
    return y;
  }

  InputGradient backward(const Pass& pass, const float* d_y, bool wants_d_x) override {
    const Index out = options_.out;
    const bool wants_weights = router_->needs_weight_gradients();
    const kernels::NewOperand d_slots = pass.operand(exchange_->num_slots(), out, experts_->readers());
    float* d_weights = wants_weights ? pass.arena.take<float>(plan_.tokens * plan_.top_k) : nullptr;
    kernels::combine_backward(
        pass.context, {.tokens = plan_.tokens,
                       .cols = out,
                       .top_k = plan_.top_k,
                       .d_y = d_y,
                       .slots = outputs_,
                       .slot_of_assignment = plan_.slot_of_assignment,
                       .weights = plan_.weights,
                       .d_slots = d_slots,
                       .d_weights = d_weights,
                       .dropout = residual_dropout(pass, input_, Purpose::kFfnResidualDropout, options_.layer)});

    const kernels::Operand d_outputs = exchange_->to_experts(pass.arena, d_slots, out);
    const kernels::Operand d_received = experts_->backward(pass, d_outputs, wants_d_x);
    InputGradient d_x;
    if (wants_d_x) d_x = {exchange_->to_tokens(pass.arena, d_received, options_.width), slots_of_rows()};
    // What came through the gate and the shared experts.
    const bool has_addend = wants_d_x && (wants_weights || shared_);
    float* addend = has_addend ? pass.arena.take<float>(input_.rows() * options_.width) : nullptr;
    d_x.addend = addend;
    if (wants_weights)
      router_->backward(route_input(pass), plan_, d_weights, pass.auxiliary_scale, addend, *pass.gradients);
    if (shared_) shared_backward(pass, d_y, wants_weights ? addend : nullptr, addend);
    return d_x;
  }

  void prepare_evaluation(const Pass& pass) override {
    if (options_.average_inference) experts_->average(pass);
  }

  const RoutePlan* plan() const override { return &plan_; }

  void after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters) override {
    router_->after_step(context, chosen, parameters);
  }

 private:
  // Of x in order. Products and dispatch take it rounded.
  kernels::Readers readers(const Pass& pass) const {
    if (takes_average(pass) || !router_->needs_x()) return kernels::Readers::kProducts;
    const bool for_router = router_->readers() == kernels::Readers::kOthers;
    return for_router ? (shared_ ? kernels::Readers::kBoth : kernels::Readers::kOthers) : kernels::Readers::kProducts;
  }
  bool takes_average(const Pass& pass) const { return !pass.training && options_.average_inference; }

  // Of input_.
  void make_plan(const Pass& pass, AuxiliaryLosses* losses) {
    plan_ = router_->route(route_input(pass), losses);
    plan_.all_stay_home = all_stay_home(router_options_, route_input(pass), pass.expert_group.rank(),
                                        pass.expert_group.size(), pass.microbatches_per_rank);
    exchange_.emplace(pass.context, pass.expert_group, plan_, pass.seconds, pass.exchange_turns);
  }

  kernels::SlotsOfRows slots_of_rows() const { return {plan_.top_k, plan_.slot_of_assignment}; }

  RouteInput route_input(const Pass& pass) const {
    return {.context = pass.context,
            .arena = pass.arena,
            .parameters = pass.parameters,
            .x = input_.x,
            .words = input_.words,
            .samples = input_.samples,
            .tokens_per_sample = input_.tokens_per_sample,
            .first_sample = input_.first_sample,
            .passes = input_.passes,
            .microbatch = input_.samples > 0 ? input_.first_sample / input_.samples : 0,
            .num_microbatches = pass.num_microbatches,
            .layer = options_.layer,
            .step = pass.step,
            .recording = pass.recording,
            .seed = pass.seed,
            .training = pass.training};
  }

  // Returns the rows that this rank's experts work on; their tokens' identities are received_ids_.
  kernels::Operand send_tokens(const Pass& pass) {
    const Index num_slots = exchange_->num_slots();
    const bool in_order = input_.slots.in_order();
    const kernels::NewOperand sorted =
        in_order ? pass.operand(num_slots, options_.width, experts_->readers()) : kernels::NewOperand{};
    auto* ids = pass.arena.take<std::int32_t>(num_slots);
    kernels::dispatch(pass.context, {.num_slots = num_slots,
                                     .cols = in_order ? options_.width : 0,
                                     .top_k = plan_.top_k,
                                     .rows = input_.x,
                                     .assignment_of_slot = plan_.assignment_of_slot,
                                     .first_id = static_cast<std::uint32_t>(input_.first_row()),
                                     .slots = sorted,
                                     .slot_ids = ids});
    received_ids_ = exchange_->ids_to_experts(pass.arena, ids);
    return exchange_->to_experts(pass.arena, in_order ? sorted : input_.x, options_.width);
  }

  // d_x = d_gate (null: zeros) + the shared experts' part, where it is wanted.
  void shared_backward(const Pass& pass, const float* d_y, const float* d_gate, float* d_x) {
    const kernels::Operand d_shared = shared_->backward(pass, d_y, d_x != nullptr).rows;
    if (!d_x) return;
    kernels::bias_dropout_residual(
        pass.context, {.rows = input_.rows(), .cols = options_.width, .x = d_shared, .residual = d_gate, .y = d_x});
  }

  FfnOptions options_;
  RouterOptions router_options_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<Experts> experts_;
  std::unique_ptr<Ffn> shared_;

  // Of the microbatch at hand:
  Input input_;
  RoutePlan plan_;
  std::optional<Exchange> exchange_;
  const std::int32_t* received_ids_ = nullptr;  // (num_received)
  kernels::Operand outputs_;                    // (num_slots, out): back at their tokens' rank
};

}  // namespace

std::unique_ptr<Ffn> make_moe_ffn(const FfnOptions& options, ParameterTable& table) {
  return std::make_unique<MoeFfn>(options, table);
}

}  // namespace switchyard
