// Every kernel at the shapes that one microbatch of the configured model gives it: what `switchyard bench kernels`
// times.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "core/context.hpp"
#include "model/model.hpp"

namespace switchyard {

class LargeProduct;

enum class Limit {
  kProduct,       // oneDNN's product of the same shape, GPU: a large product; FLOP/s
  kMultiplyAdds,  // fused multiply-adds on registers, GPU: a large product; FLOP/s
  kMemory,        // the same arrays read and written, GPU: as many bytes copied, nothing computed; B/s
};

struct KernelCase {
  // On arrays of its own, which live as long as the functions.
  struct Prepared {
    std::function<void()> run, run_limit;
    double work = 0, limit_work = 0;  // of one call: floating-point operations, or bytes read and written
  };

  std::string name, shape;  // the kernel's name in kernels/api; rows x columns, and what else changes its time
  Limit limit = Limit::kMemory;
  std::function<Prepared()> prepare;
};

// They keep the context. num_parameters: those that one rank updates. large_product: the limit on a GPU; null on the
// CPU.
std::vector<KernelCase> kernel_cases(const Context& context, const Config& config, const ModelOptions& model,
                                     Index num_parameters, const LargeProduct* large_product);

}  // namespace switchyard
