// Kernels of convolutional networks over patches.
#include "app/case_list.hpp"
#include "kernels/api/patch_conv.hpp"

namespace switchyard {

void add_patch_cases(CaseList& cases) {
  const Index rows = cases.segment_rows, patches = cases.model.image_height, filters = cases.hidden, out = cases.out,
              size = rows * patches * filters;
  const kernels::Activation activation = cases.model.ffn.activation;
  const std::string shape = by({rows, patches, filters});
  cases.add(kernels::patch_pool, "patch_pool", shape, [=](Operands& o) -> kernels::PatchPool {
    return {.rows = rows,
            .patches = patches,
            .filters = filters,
            .classes = out,
            .activation = activation,
            .hidden = o.read(size),
            .bias = o.read(filters),
            .y = o.write(rows * out)};
  });
  cases.add(kernels::patch_pool_backward, "patch_pool_backward", shape, [=](Operands& o) -> kernels::PatchPoolBackward {
    float* hidden = o.update(size);
    return {.rows = rows,
            .patches = patches,
            .filters = filters,
            .classes = out,
            .activation = activation,
            .hidden = hidden,
            .bias = o.read(filters),
            .d_y = o.read(rows * out),
            .d_hidden = hidden,
            .d_bias = o.write(filters)};
  });
  if (!cases.model.ffn.is_mixture()) return;
  // What the router patch_sum goes by.
  const Index tokens = cases.tokens, cols = cases.fan_in;
  cases.add(kernels::patch_sum, "patch_sum", by({tokens, patches, cols}), [=](Operands& o) -> kernels::PatchSum {
    return {.rows = tokens,
            .patches = patches,
            .cols = cols,
            .x = o.read(tokens * patches * cols),
            .y = o.write(tokens * cols)};
  });
}

}  // namespace switchyard
