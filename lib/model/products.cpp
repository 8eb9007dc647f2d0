#include "model/products.hpp"

#include <algorithm>

namespace switchyard {

namespace {

// y = x W^T, d_W = d_y^T x and, where something lies below, d_x = d_y W.
void add_linear(std::vector<ProductShape>& products, Index rows, Index in, Index out, Index count,
                bool needs_d_x = true) {
  products.push_back({false, true, rows, out, in, count});
  products.push_back({true, false, out, in, rows, count});
  if (needs_d_x) products.push_back({false, false, rows, in, out, count});
}

void add_mixture(std::vector<ProductShape>& products, const VitOptions& options, Index rows) {
  const FfnOptions& ffn = options.ffn;
  const Index segments = num_segments(options);
  const Index assignments = rows * experts_per_token(ffn.router), blocks = options.layers / options.mixture_every;
  add_linear(products, ceil_div(assignments, segments), options.width, ffn.hidden, blocks * segments);
  add_linear(products, ceil_div(assignments, segments), ffn.hidden, options.width, blocks * segments);
  if (ffn.shared == 0) return;
  add_linear(products, rows, options.width, ffn.shared * ffn.hidden, blocks);
  add_linear(products, rows, ffn.shared * ffn.hidden, options.width, blocks);
}

}  // namespace

Index num_segments(const VitOptions& options) {
  const FfnOptions& ffn = options.ffn;
  if (!ffn.is_mixture()) return 1;
  const bool one_expert_a_pass = ffn.router.name == "random" && ffn.router.granularity == "batch";
  return one_expert_a_pass ? std::min(options.training_passes(), ffn.num_experts) : ffn.num_experts;
}

std::vector<ProductShape> training_products(const VitOptions& options, Index samples_of_batch) {
  std::vector<ProductShape> products;
  const Index samples = samples_of_batch * options.training_passes();
  const Index rows = samples * options.num_tokens(), width = options.width;
  add_linear(products, samples * options.num_patches(), options.channels * options.patch * options.patch, width, 1,
             false);
  add_linear(products, rows, width, 3 * width, options.layers);
  add_linear(products, rows, width, width, options.layers);
  const Index mixtures = options.ffn.is_mixture() ? options.layers / options.mixture_every : 0;
  if (mixtures > 0) add_mixture(products, options, rows);
  if (mixtures < options.layers) {
    add_linear(products, rows, width, options.ffn.hidden, options.layers - mixtures);
    add_linear(products, rows, options.ffn.hidden, width, options.layers - mixtures);
  }
  Index head_width = width;
  if (options.head_hidden > 0) {
    add_linear(products, samples, width, options.head_hidden, 1);
    head_width = options.head_hidden;
  }
  add_linear(products, samples, head_width, options.classes, 1);
  return products;
}

double attention_training_flop(const VitOptions& options) {
  const auto tokens = static_cast<double>(options.num_tokens()),
             passes = static_cast<double>(options.training_passes());
  // Q K^T and P V forward; twice as many backward.
  return passes * 3 * 2 * 2 * tokens * tokens * static_cast<double>(options.width * options.layers);
}

}  // namespace switchyard
