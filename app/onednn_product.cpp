#include "app/onednn_product.hpp"

#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/clock.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

using dnnl::memory;

memory::desc row_major(Index rows, Index cols, bool transposed, memory::data_type type) {
  return {{rows, cols}, type, transposed ? memory::dims{1, rows} : memory::dims{cols, 1}};
}

memory filled(const memory::desc& desc, const dnnl::engine& engine) {
  memory array(desc, engine);
  fill_operand(array.get_data_handle(), desc.get_size());
  return array;
}

dnnl::matmul::primitive_desc describe(const memory::desc& a, const memory::desc& b, const memory::desc& c,
                                      const dnnl::engine& engine) {
  try {
#if DNNL_VERSION_MAJOR >= 3
    return {engine, a, b, c};
#else
    return {dnnl::matmul::desc(a, b, c), engine};
#endif
  } catch (const dnnl::error& error) {
    fail("oneDNN has no matrix product of this compute.dtype for this processor ({}): time compute.dtype = fp32.",
         error.what());
  }
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

void fill_operand(void* data, std::size_t bytes) {
  // The upper half of a float is a bf16: sign and exponent of 0.5 and seven bits of fraction.
  for (std::size_t i = 0; i + 1 < bytes; i += 2) {
    const auto half = static_cast<std::uint16_t>(0x3f00u | (static_cast<std::uint32_t>(i) * 0x9E3779B9u >> 25));
    std::memcpy(static_cast<char*>(data) + i, &half, sizeof half);
  }
}

OneDnnProduct::OneDnnProduct(const ProductShape& shape, kernels::Precision precision)
    : shape_(shape), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
  omp_set_num_threads(1);
  const auto type = precision == kernels::Precision::kBf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a = row_major(shape.m, shape.k, shape.transpose_a, type);
  const memory::desc c = row_major(shape.m, shape.n, false, memory::data_type::f32);
  const memory::desc any_b({shape.k, shape.n}, type, memory::format_tag::any);
  const dnnl::matmul::primitive_desc description = describe(a, any_b, c, engine_);
  matmul_ = dnnl::matmul(description);
  a_ = filled(a, engine_);
  b_ = filled(description.weights_desc(), engine_);
  c_ = filled(c, engine_);
  if (precision == kernels::Precision::kBf16) return;
  sgemm_b_.resize(static_cast<std::size_t>(shape.k * shape.n));
  fill_operand(sgemm_b_.data(), sgemm_b_.size() * sizeof(float));
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
