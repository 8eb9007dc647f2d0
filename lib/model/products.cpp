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

// Of one block's feed-forward network for `rows` tokens; count: of such blocks.
void add_dense(std::vector<ProductShape>& products, const FfnOptions& ffn, Index rows, Index count, bool needs_d_x) {
  add_linear(products, rows, ffn.width, ffn.hidden, count, needs_d_x);
  add_linear(products, rows, ffn.hidden, ffn.out, count);
}

void add_mixture(std::vector<ProductShape>& products, const ModelOptions& options, Index rows, Index count,
                 bool needs_d_x) {
  FfnOptions ffn = options.ffn;
  const Index segments = num_segments(options);
  add_dense(products, ffn, ceil_div(rows * experts_per_token(ffn.router), segments), count * segments, needs_d_x);
  if (ffn.shared == 0) return;
  ffn.hidden *= ffn.shared;
  add_dense(products, ffn, rows, count, needs_d_x);
}

// Nodes, hidden units and outputs of all leaves; their biases are one more product.
void add_tree(std::vector<ProductShape>& products, const FfnOptions& ffn, Index rows, Index count, bool needs_d_x) {
  const Index leaves = ffn.num_experts, hidden = leaves * ffn.tree.leaf;
  add_linear(products, rows, ffn.width, leaves - 1, count, needs_d_x);
  add_linear(products, rows, ffn.width, hidden, count, needs_d_x);
  add_linear(products, rows, hidden, ffn.out, count);
  add_linear(products, rows, leaves, ffn.out, count);
}

void add_ffn(std::vector<ProductShape>& products, const ModelOptions& options, Index rows, Index count,
             bool needs_d_x = true) {
  if (options.ffn.is_mixture())
    add_mixture(products, options, rows, count, needs_d_x);
  else if (options.ffn.is_tree())
    add_tree(products, options.ffn, rows, count, needs_d_x);
  else
    add_dense(products, options.ffn, rows, count, needs_d_x);
}

std::vector<ProductShape> vit_products(const ModelOptions& options, Index samples) {
  std::vector<ProductShape> products;
  const Index rows = samples * options.num_tokens(), width = options.width;
  add_linear(products, samples * options.num_patches(), options.channels * options.patch * options.patch, width, 1,
             false);
  add_linear(products, rows, width, 3 * width, options.layers);
  add_linear(products, rows, width, width, options.layers);
  ModelOptions block = options;
  block.ffn.width = block.ffn.out = width;
  const Index of_kind = options.layers / options.mixture_every;
  add_ffn(products, block, rows, of_kind);
  if (of_kind < options.layers) add_dense(products, block.ffn, rows, options.layers - of_kind, true);
  Index head_width = width;
  if (options.head_hidden > 0) {
    add_linear(products, samples, width, options.head_hidden, 1);
    head_width = options.head_hidden;
  }
  add_linear(products, samples, head_width, options.classes, 1);
  return products;
}

std::vector<ProductShape> mlp_products(const ModelOptions& options, Index samples) {
  std::vector<ProductShape> products;
  ModelOptions block = options;
  block.ffn.width = options.image_size();
  block.ffn.out = options.classes;
  add_ffn(products, block, samples, 1, false);
  return products;
}

// One convolution for each network, over the patches of its rows.
std::vector<ProductShape> patch_products(const ModelOptions& options, Index samples) {
  std::vector<ProductShape> products;
  const FfnOptions& ffn = options.ffn;
  const Index segments = num_segments(options), visits = ffn.is_mixture() ? experts_per_token(ffn.router) : 1;
  add_linear(products, ceil_div(samples * visits, segments) * options.image_height,
             options.image_width * options.channels, ffn.hidden, segments, false);
  return products;
}

}  // namespace

Index num_segments(const ModelOptions& options) {
  const FfnOptions& ffn = options.ffn;
  if (!ffn.is_mixture()) return 1;
  const bool one_expert_a_pass = ffn.router.name == "random" && ffn.router.granularity == "batch";
  return one_expert_a_pass ? std::min(options.training_passes(), ffn.num_experts) : ffn.num_experts;
}

std::vector<ProductShape> training_products(const ModelOptions& options, Index samples) {
  const Index all = samples * options.training_passes();
  if (options.kind == "patch_cnn") return patch_products(options, all);
  return options.is_vit() ? vit_products(options, all) : mlp_products(options, all);
}

double attention_training_flop(const ModelOptions& options) {
  if (!options.is_vit()) return 0;
  const auto tokens = static_cast<double>(options.num_tokens()),
             passes = static_cast<double>(options.training_passes());
  // Q K^T and P V forward; twice as many backward.
  return passes * 3 * 2 * 2 * tokens * tokens * static_cast<double>(options.width * options.layers);
}

}  // namespace switchyard
