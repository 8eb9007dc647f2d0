// The table of `switchyard bench kernels`: products, attention and flat arrays; the rest stands in *_cases.cpp.
#include "app/kernel_cases.hpp"

#include "app/bench.hpp"
#include "app/case_list.hpp"
#include "app/inference_network.hpp"
#include "app/onednn_product.hpp"
#include "app/own_product.hpp"
#include "kernels/api/attention.hpp"
#include "kernels/api/optimizer.hpp"
#include "kernels/api/reduce.hpp"
#include "model/products.hpp"
#include "network/model_options.hpp"

namespace switchyard {

CaseList::CaseList(const Context& whole_context, const Config& configured, const ModelOptions& options,
                   Index parameters, const LargeProduct* product)
    : context(whole_context),
      config(configured),
      model(options),
      num_parameters(parameters),
      large_product(product),
      precision(product_precision(configured)),
      samples(config.train.microbatch * options.training_passes()),
      tokens(samples * model.num_tokens()),
      segment_rows(ceil_div(tokens, num_segments(model))),
      width(layer_options(options).width),
      out(layer_options(options).out),
      hidden(options.ffn.is_tree() ? options.ffn.num_experts * options.ffn.tree.leaf : options.ffn.hidden),
      fan_in(options.kind == "patch_cnn" ? width / options.image_height : width) {}

namespace {

void add_products(CaseList& cases) {
  for (const ProductShape& shape : training_products(cases.model, cases.config.train.microbatch)) {
    const auto prepare = [shape, &context = cases.context, large = cases.large_product,
                          precision = cases.precision]() -> KernelCase::Prepared {
      const auto own = std::make_shared<OwnProduct>(context, shape, precision);
      const double flop = shape.flop() / static_cast<double>(shape.count);
      if (large) return {[&context, own] { own->run(context); }, [large] { large->run(); }, flop, large->flop()};
      const auto peer = std::make_shared<OneDnnProduct>(shape, precision);
      return {[&context, own] { own->run(context); }, [peer] { peer->run(); }, flop, flop};
    };
    const char* kind = shape.transpose_a ? "A^T B" : shape.transpose_b ? "A B^T" : "A B";
    cases.push_back({"gemm", fmt::format("{}, {}", by({shape.m, shape.n, shape.k}), kind), Limit::kProduct, prepare});
  }
}

// A feed-forward network's first weight, as the forward (transposed) and the backward pass multiply by it.
void add_packing(CaseList& cases) {
  const Index hidden = cases.hidden, fan_in = cases.fan_in;
  const kernels::LinearProducts products{cases.segment_rows, fan_in, hidden, cases.precision};
  for (const bool forward : {true, false}) {
    kernels::Gemm product =
        forward ? products.forward(nullptr, nullptr, nullptr) : products.input_gradient(nullptr, nullptr, nullptr);
    const Index packed_bytes = kernels::packed_b_bytes(cases.context, product);
    if (packed_bytes == 0) continue;  // read as it is
    cases.add_run("pack_b", by({hidden, fan_in}) + (forward ? ", B^T" : ", B"), 0,
                  [=](Operands& o) mutable -> CaseList::Run {
                    product.b = o.read(hidden * fan_in);
                    auto* packed = o.write<std::byte>(packed_bytes);
                    return [product, packed](const Context& context) { kernels::pack_b(context, product, packed); };
                  });
  }
}

void add_attention(CaseList& cases) {
  const Index samples = cases.samples, tokens = cases.model.num_tokens(), heads = cases.model.heads,
              width = cases.model.width;
  const Index head_size = width / heads, rows = cases.tokens;
  const kernels::Precision precision = cases.precision;
  // (tokens, tokens) times (tokens, head_size) or the like, over all heads and samples. Forward: Q K^T and P V.
  // Backward: Q K^T again, d_out V^T, and the gradients of Q, K and V.
  const double product = 2 * static_cast<double>(rows * tokens * width);
  const std::string shape = by({samples, tokens, heads, head_size});
  cases.add_with_dropout(
      kernels::attention, "attention", shape,
      [=](Operands& o, const kernels::Dropout& dropout) -> kernels::Attention {
        return {.samples = samples,
                .tokens = tokens,
                .heads = heads,
                .head_size = head_size,
                .qkv = o.read_operand(rows, 3 * width),
                .bias = o.read(3 * width),
                .out = o.write_operand(rows, width),
                .log_sum_exp = o.write(rows * heads),
                .dropout = dropout,
                .precision = precision};
      },
      2 * product);
  cases.add_with_dropout(
      kernels::attention_backward, "attention_backward", shape,
      [=](Operands& o, const kernels::Dropout& dropout) -> kernels::AttentionBackward {
        return {.samples = samples,
                .tokens = tokens,
                .heads = heads,
                .head_size = head_size,
                .qkv = o.read_operand(rows, 3 * width),
                .bias = o.read(3 * width),
                .out = o.read_operand(rows, width),
                .log_sum_exp = o.read(rows * heads),
                .d_out = o.read_operand(rows, width),
                .d_qkv = o.write_operand(rows, 3 * width),
                .d_bias = o.write(3 * width),
                .dropout = dropout,
                .precision = precision};
      },
      5 * product);
}

// Gradients and parameters: of one feed-forward matrix, or all that a rank updates.
void add_flat_arrays(CaseList& cases) {
  const Index all = cases.num_parameters, matrix = cases.hidden * cases.fan_in,
              activations = cases.tokens * cases.width;
  cases.add(kernels::tree_carry, "tree_carry", by({matrix}), [=](Operands& o) -> kernels::TreeCarry {
    return {
        .size = matrix, .num_earlier = 1, .earlier = {o.read(matrix)}, .last = o.read(matrix), .out = o.write(matrix)};
  });
  cases.add_run("sum_of_squares", by({matrix}), 0, [=](Operands& o) -> CaseList::Run {
    return [matrix, x = o.read(matrix), sum = o.write<double>(1)](const Context& context) {
      kernels::sum_of_squares(context, {.size = matrix, .x = x, .sum = sum});
    };
  });
  cases.add(kernels::adam, "adam", by({all}), [=](Operands& o) -> kernels::Adam {
    return {.size = all,
            .parameters = o.update(all),
            .gradients = o.read(all),
            .first_moments = o.update(all),
            .second_moments = o.update(all),
            .learning_rate = 1e-4f};
  });
  cases.add(kernels::sgd, "sgd", by({all}), [=](Operands& o) -> kernels::Sgd {
    return {.size = all,
            .parameters = o.update(all),
            .gradients = o.read(all),
            .velocities = o.update(all),
            .learning_rate = 1e-4f,
            .momentum = 0.9f};
  });
  cases.add_run("fill_zero", by({activations}), 0, [=](Operands& o) -> CaseList::Run {
    return [bytes = activations * Index{sizeof(float)}, x = o.write(activations)](const Context& context) {
      kernels::fill_zero(context, x, bytes);
    };
  });
  cases.add_run("copy", by({activations}), 0, [=](Operands& o) -> CaseList::Run {
    return [bytes = activations * Index{sizeof(float)}, from = o.read(activations),
            to = o.write(activations)](const Context& context) { kernels::copy(context, to, from, bytes); };
  });
  cases.add_run("count_not_finite", by({activations}), 0, [=](Operands& o) -> CaseList::Run {
    return [activations, x = o.read(activations)](const Context& context) {
      kernels::count_not_finite(context, x, activations);
    };
  });
}

}  // namespace

std::vector<KernelCase> kernel_cases(const Context& context, const Config& config, const ModelOptions& model,
                                     Index num_parameters, const LargeProduct* large_product) {
  CaseList cases(context, config, model, num_parameters, large_product);
  add_products(cases);
  if (model.is_vit()) add_attention(cases);
  if (model.ffn.is_tree()) add_visit_cases(cases);
  add_packing(cases);
  add_layer_cases(cases);
  if (model.ffn.is_tree()) add_tree_cases(cases);
  if (model.kind == "patch_cnn") add_patch_cases(cases);
  if (model.ffn.is_mixture()) {
    add_routing_cases(cases);
    add_gate_cases(cases);
  }
  add_flat_arrays(cases);
  return cases.take();
}

}  // namespace switchyard
