// A matrix product as oneDNN computes it, on one thread and on arrays of its own: what `switchyard bench` measures the
// program's own products against.
#pragma once

#include <dnnl.hpp>

#include <vector>

#include "kernels/api/gemm.hpp"
#include "model/products.hpp"

namespace switchyard {

// Numbers near one, as fp32 as well as bf16, all of them different enough: operands of products that are timed.
void fill_operand(void* data, std::size_t bytes);

class OneDnnProduct {
 public:
  // Fails where oneDNN has no such product for this processor.
  OneDnnProduct(const ProductShape& shape, kernels::Precision precision);
  // The product once, on the calling thread: dnnl_sgemm or the matmul primitive, whichever was faster when tried.
  void run();

 private:
  void run_sgemm();
  void run_matmul();

  ProductShape shape_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  dnnl::memory a_, b_, c_;
  std::vector<float> sgemm_b_;  // B in plain layout; matmul's own lies as the primitive likes it
  bool takes_sgemm_ = false;
};

}  // namespace switchyard
