#include "app/onednn_product.hpp"

#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "core/clock.hpp"

namespace switchyard {

namespace {

using dnnl::memory;

memory::desc row_major(Index rows, Index cols, bool transposed, memory::data_type type) {
  return {{rows, cols}, type, transposed ? memory::dims{1, rows} : memory::dims{cols, 1}};
}

// Zero bytes are zeros in fp32 and bf16, and products of zeros take as long as any.
memory zeros(const memory::desc& desc, const dnnl::engine& engine) {
  memory array(desc, engine);
  std::memset(array.get_data_handle(), 0, desc.get_size());
  return array;
}

template <typename Run>
double fastest_of_three(const Run& run) {
  double fastest = 1e30;
  for (int i = 0; i < 3; ++i) {
    const double start = seconds_now();
    run();
    fastest = std::min(fastest, seconds_now() - start);
  }
  return fastest;
}

}  // namespace

OneDnnProduct::OneDnnProduct(const ProductShape& shape, kernels::Precision precision)
    : shape_(shape), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
  omp_set_num_threads(1);
  const auto type = precision == kernels::Precision::kBf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a = row_major(shape.m, shape.k, shape.transpose_a, type);
  const memory::desc c = row_major(shape.m, shape.n, false, memory::data_type::f32);
  const memory::desc any_b({shape.k, shape.n}, type, memory::format_tag::any);
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, any_b, c), engine_);
  matmul_ = dnnl::matmul(description);
  a_ = zeros(a, engine_);
  b_ = zeros(description.weights_desc(), engine_);
  c_ = zeros(c, engine_);
  if (precision == kernels::Precision::kBf16) return;
  sgemm_b_.resize(static_cast<std::size_t>(shape.k * shape.n));
  const double sgemm_seconds = fastest_of_three([&] { run_sgemm(); });
  takes_sgemm_ = sgemm_seconds < fastest_of_three([&] { run_matmul(); });
}

void OneDnnProduct::run() {
  omp_set_num_threads(1);  // of this thread's calls into oneDNN
  takes_sgemm_ ? run_sgemm() : run_matmul();
}

void OneDnnProduct::run_sgemm() {
  const ProductShape& s = shape_;
  dnnl_sgemm(s.transpose_a ? 'T' : 'N', s.transpose_b ? 'T' : 'N', s.m, s.n, s.k, 1.0f,
             static_cast<const float*>(a_.get_data_handle()), s.transpose_a ? s.m : s.k, sgemm_b_.data(),
             s.transpose_b ? s.k : s.n, 0.0f, static_cast<float*>(c_.get_data_handle()), s.n);
}

void OneDnnProduct::run_matmul() {
  matmul_.execute(stream_, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}});
  stream_.wait();
}

}  // namespace switchyard
