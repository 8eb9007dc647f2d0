// A model as the configuration describes it.
#pragma once

#include "config/config.hpp"
#include "data/dataset.hpp"
#include "kernels/api/operand.hpp"
#include "model/model.hpp"

namespace switchyard {

ModelOptions model_options(const Config& config, const ImageShape& image);
// What the ffn section says of the router; width and prefix are left to the mixture.
RouterOptions router_options(const Config::Ffn& ffn);
// compute.dtype as the kernels know it.
kernels::Precision product_precision(const Config& config);

// Fails with kUsage where a batch has more rows, or a microbatch more choices of experts, than can be counted.
void check_rows(const Config& config, const ModelOptions& model);

}  // namespace switchyard
