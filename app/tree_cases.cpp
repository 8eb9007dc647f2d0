// Kernels of fast feedforward networks.
#include "app/case_list.hpp"
#include "kernels/api/tree.hpp"

namespace switchyard {

namespace {

// Uniform over [-1, 1): rows of such numbers find their way to every leaf.
const float* read_random(Operands& o, Index count, std::uint32_t array) {
  std::vector<float> values;
  for (Index i = 0; i < count; ++i)
    values.push_back(2 * to_unit_float(random_words({}, array, static_cast<std::uint32_t>(i))[0]) - 1);
  return o.read(values);
}

}  // namespace

void add_visit_cases(CaseList& cases) {
  const Index rows = cases.tokens, width = cases.width, out = cases.out, depth = cases.model.ffn.tree.depth,
              leaf = cases.model.ffn.tree.leaf;
  const Index nodes = kernels::num_nodes(depth), leaves = kernels::num_leaves(depth);
  const double descent = 2 * static_cast<double>(rows * depth * width),
               visit = 2 * static_cast<double>(rows * leaf * (width + out));
  cases.add(
      kernels::tree_descent, "tree_descent", by({rows, width}) + fmt::format(", depth {}", depth),
      [=](Operands& o) -> kernels::TreeDescent {
        return {.rows = rows,
                .width = width,
                .depth = depth,
                .x = read_random(o, rows * width, 0),
                .weight = read_random(o, nodes * width, 1),
                .bias = o.read(std::vector<float>(static_cast<std::size_t>(nodes))),
                .leaf = o.write<std::int32_t>(rows)};
      },
      descent);
  // Tokens that came from other ranks, equally many at each leaf.
  cases.add_run("leaf_forward", by({rows, width, leaf, out}), visit, [=](Operands& o) -> CaseList::Run {
    std::vector<kernels::LeafForward> visits;
    for (Index i = 0; i < leaves; ++i) {
      const Index share = (rows + i) / leaves;
      if (share > 0)
        visits.push_back({.rows = share,
                          .width = width,
                          .leaf_width = leaf,
                          .out = out,
                          .x = o.read(share * width),
                          .w1 = o.read(leaf * width),
                          .b1 = o.read(leaf),
                          .w2 = o.read(leaf * out),
                          .b2 = o.read(out),
                          .y = o.write(share * out)});
    }
    return [visits](const Context& context) { kernels::leaf_forward(context, visits); };
  });
  cases.add(
      kernels::tree_forward, "tree_forward", by({rows, width, leaf, out}),
      [=](Operands& o) -> kernels::TreeForward {
        return {.rows = rows,
                .width = width,
                .depth = depth,
                .leaf_width = leaf,
                .out = out,
                .x = read_random(o, rows * width, 0),
                .weight = read_random(o, nodes * width, 1),
                .bias = o.read(std::vector<float>(static_cast<std::size_t>(nodes))),
                .w1 = o.read(leaves * leaf * width),
                .b1 = o.read(leaves * leaf),
                .w2 = o.read(leaves * leaf * out),
                .b2 = o.read(leaves * out),
                .y = o.write(rows * out)};
      },
      descent + visit);
}

void add_tree_cases(CaseList& cases) {
  const TreeOptions tree = cases.model.ffn.tree;
  const Index rows = cases.tokens, nodes = kernels::num_nodes(tree.depth), leaves = kernels::num_leaves(tree.depth),
              hidden = rows * leaves * tree.leaf;
  const RandomKey key{cases.config.run.seed, Purpose::kRegionLeak, 0, 0};
  const auto leak = static_cast<float>(tree.region_leak);
  cases.add(kernels::tree_mixture, "tree_mixture", by({rows, leaves}), [=](Operands& o) -> kernels::TreeMixture {
    return {.rows = rows,
            .depth = tree.depth,
            .logits = o.read(rows * nodes),
            .bias = o.read(nodes),
            .hard = tree.hard,
            .leak = leak,
            .key = key,
            .choices = o.write(rows * nodes),
            .mixture = o.write(rows * leaves),
            .entropy_sums = o.write(nodes)};
  });
  cases.add(kernels::tree_mixture_backward, "tree_mixture_backward", by({rows, leaves}),
            [=](Operands& o) -> kernels::TreeMixtureBackward {
              return {.rows = rows,
                      .depth = tree.depth,
                      .logits = o.read(rows * nodes),
                      .bias = o.read(nodes),
                      .choices = o.read(rows * nodes),
                      .leak = leak,
                      .key = key,
                      .entropy_scale = 1,
                      .d_mixture = o.read(rows * leaves),
                      .d_logits = o.write(rows * nodes),
                      .d_bias = o.write(nodes)};
            });
  cases.add(kernels::scale_leaves, "scale_leaves", by({rows, leaves, tree.leaf}),
            [=](Operands& o) -> kernels::ScaleLeaves {
              return {.rows = rows,
                      .leaves = leaves,
                      .leaf_width = tree.leaf,
                      .mixture = o.read(rows * leaves),
                      .hidden = o.read(hidden),
                      .scaled = o.write(hidden)};
            });
  cases.add(kernels::scale_leaves_backward, "scale_leaves_backward", by({rows, leaves, tree.leaf}),
            [=](Operands& o) -> kernels::ScaleLeavesBackward {
              float* d_scaled = o.update(hidden);
              return {.rows = rows,
                      .leaves = leaves,
                      .leaf_width = tree.leaf,
                      .mixture = o.read(rows * leaves),
                      .hidden = o.read(hidden),
                      .d_scaled = d_scaled,
                      .d_hidden = d_scaled,
                      .d_mixture = o.update(rows * leaves)};
            });
}

}  // namespace switchyard
