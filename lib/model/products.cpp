#include "model/products.hpp"

namespace switchyard {

namespace {

// y = x W^T, d_W = d_y^T x and, where something lies below, d_x = d_y W.
void add_linear(std::vector<ProductShape>& products, Index rows, Index in, Index out, Index count,
                bool needs_d_x = true) {
  products.push_back({false, true, rows, out, in, count});
  products.push_back({true, false, out, in, rows, count});
  if (needs_d_x) products.push_back({false, false, rows, in, out, count});
}

}  // namespace

std::vector<ProductShape> training_products(const VitOptions& options, Index samples, Index segments) {
  std::vector<ProductShape> products;
  const Index rows = samples * options.num_tokens(), width = options.width;
  add_linear(products, samples * options.num_patches(), options.channels * options.patch * options.patch, width, 1,
             false);
  add_linear(products, rows, width, 3 * width, options.layers);
  add_linear(products, rows, width, width, options.layers);
  if (options.ffn.kind == "dense") segments = 1;
  add_linear(products, ceil_div(rows, segments), width, options.ffn.hidden, options.layers * segments);
  add_linear(products, ceil_div(rows, segments), options.ffn.hidden, width, options.layers * segments);
  Index head_width = width;
  if (options.head_hidden > 0) {
    add_linear(products, samples, width, options.head_hidden, 1);
    head_width = options.head_hidden;
  }
  add_linear(products, samples, head_width, options.classes, 1);
  return products;
}

double attention_training_flop(const VitOptions& options) {
  const auto tokens = static_cast<double>(options.num_tokens());
  // Q K^T and P V forward; twice as many backward.
  return 3 * 2 * 2 * tokens * tokens * static_cast<double>(options.width * options.layers);
}

}  // namespace switchyard
