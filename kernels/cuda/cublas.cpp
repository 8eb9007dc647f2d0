// multiply() by cuBLASLt. Its heuristic is asked once for each shape, with nothing in the question but the shape, and
// the first answer is kept: the same library on the same kind of GPU gives the same. It may not cut a sum into parts
// itself (reduction scheme NONE): the order in which some of its schemes add up is not promised.
#include <cublasLt.h>

#include <array>
#include <map>
#include <optional>

#include "core/error.hpp"
#include "kernels/cuda/multiply.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

namespace {

void check_cublas(cublasStatus_t status, std::string_view what) {
  if (status != CUBLAS_STATUS_SUCCESS) fail("{}: cuBLASLt reports \"{}\"", what, cublasLtGetStatusString(status));
}

cublasLtHandle_t handle() {  // of the one GPU that this process uses
  static const cublasLtHandle_t made = [] {
    cublasLtHandle_t made_handle = nullptr;
    check_cublas(cublasLtCreate(&made_handle), "starting cuBLASLt");
    return made_handle;
  }();
  return made;
}

// All that an algorithm is chosen by.
struct Shape {
  Index transpose_a, transpose_b, bf16, tf32, c_bf16, bias, m, n, k, batch, lda, ldb, ldc;
  auto operator<=>(const Shape&) const = default;
};

Shape shape_of(const Product& p) {
  return {p.transpose_a, p.transpose_b, p.bf16, p.tf32, p.c_rounded != nullptr, p.bias != nullptr, p.m, p.n, p.k,
          p.batch,       p.lda,         p.ldb,  p.ldc};
}

// cuBLAS counts columns first: to it, row-major C is C^T = op(B)^T op(A)^T, its first operand is B, and rows and
// columns change places everywhere.
struct Description {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, c;
};

void describe_matrix(cublasLtMatrixLayoutOpaque_t& layout, bool bf16, Index rows, Index cols, Index ld, Index batch,
                     Index stride) {
  check_cublas(cublasLtMatrixLayoutInit(&layout, bf16 ? CUDA_R_16BF : CUDA_R_32F, static_cast<std::uint64_t>(cols),
                                        static_cast<std::uint64_t>(rows), ld),
               "describing a matrix");
  const auto set = [&](cublasLtMatrixLayoutAttribute_t attribute, const auto& value) {
    check_cublas(cublasLtMatrixLayoutSetAttribute(&layout, attribute, &value, sizeof value), "describing a batch");
  };
  if (batch == 1) return;
  set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(batch));
  set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, static_cast<std::int64_t>(stride));
}

template <typename T>
void set(cublasLtMatmulDescOpaque_t& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_cublas(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value), "describing a product");
}

// The bias belongs to the columns of row-major C, so to the rows of C^T, as the epilogue has it. The heuristic looks at
// its address for the alignment alone: this one has what multiply() is promised and no more.
void describe_bias(cublasLtMatmulDescOpaque_t& operation, const Product& p) {
  constexpr std::uintptr_t kAligned = 16;
  set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  set(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
      static_cast<std::int32_t>(p.c_rounded ? CUDA_R_16BF : CUDA_R_32F));
  set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, reinterpret_cast<const void*>(kAligned));
}

void describe_operation(cublasLtMatmulDescOpaque_t& operation, const Product& p) {
  const cublasComputeType_t sums = p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check_cublas(cublasLtMatmulDescInit(&operation, sums, CUDA_R_32F), "describing a product");
  const auto form = [](bool transposed) -> std::int32_t { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, form(p.transpose_b));
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, form(p.transpose_a));
  if (p.bias) describe_bias(operation, p);
}

cublasLtMatmulPreferenceOpaque_t preference_of(const Product& p) {
  cublasLtMatmulPreferenceOpaque_t preference;
  check_cublas(cublasLtMatmulPreferenceInit(&preference), "preparing the choice of an algorithm");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
                 "preparing the choice of an algorithm");
  };
  const std::uint32_t operands = 16, result = p.c_rounded || p.ldc % 4 == 0 ? 16 : 4;  // as multiply() promises
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kMultiplyWorkspaceBytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, operands);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, operands);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result);
  return preference;
}

const char* name_of(bool bf16, bool tf32 = false) { return bf16 ? "bf16" : tf32 ? "tf32" : "fp32"; }
const char* with_bias(bool bias) { return bias ? " with bias" : ""; }

Description describe(const Product& p) {
  Description d;
  describe_operation(d.operation, p);
  describe_matrix(d.a, p.bf16, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda, p.batch, p.stride_a);
  describe_matrix(d.b, p.bf16, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb, p.batch, p.stride_b);
  describe_matrix(d.c, p.c_rounded != nullptr, p.m, p.n, p.ldc, p.batch, p.stride_c);
  return d;
}

// None: cuBLASLt has no algorithm.
using Choice = std::optional<cublasLtMatmulAlgo_t>;

Choice choose(const Product& p) {
  Description d = describe(p);
  cublasLtMatmulPreferenceOpaque_t preference = preference_of(p);
  cublasLtMatmulHeuristicResult_t found{};
  int num_found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle(), &d.operation, &d.b, &d.a, &d.c, &d.c,
                                                               &preference, 1, &found, &num_found);
  const bool none = status != CUBLAS_STATUS_SUCCESS || num_found == 0 || found.state != CUBLAS_STATUS_SUCCESS;
  return none ? Choice() : found.algo;
}

std::map<Shape, Choice>& choices() {
  static std::map<Shape, Choice> made;
  return made;
}

const Choice& choice_for(const Product& p) {
  const Shape shape = shape_of(p);
  const auto found = choices().find(shape);
  return found != choices().end() ? found->second : choices().emplace(shape, choose(p)).first->second;
}

template <typename T>
T configured(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  (void)cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value, &written);
  return value;  // zero where this algorithm has no such thing
}

std::string describe(const Shape& s, const cublasLtMatmulAlgo_t& algorithm) {
  return fmt::format(
      "{}{} {} to {}{} m {} n {} k {} batch {} lda {} ldb {} ldc {}: algorithm {} tile {} stages {} split-k {} "
      "reduction "
      "{} swizzle {} option {} inner {} cluster {}\n",
      s.transpose_a ? 't' : 'n', s.transpose_b ? 't' : 'n', name_of(s.bf16, s.tf32), name_of(s.c_bf16),
      with_bias(s.bias), s.m, s.n, s.k, s.batch, s.lda, s.ldb, s.ldc,
      configured<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID),
      configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
      configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID),
      configured<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
      configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME),
      configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING),
      configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION),
      configured<std::uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID),
      configured<std::uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID));
}

}  // namespace

void multiply(const Context& context, const Product& p, void* workspace) {
  Description d = describe(p);
  if (p.bias) set(d.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  const float one = 1, beta = p.addend ? 1.0f : 0.0f;
  void* const c = p.c_rounded ? static_cast<void*>(p.c_rounded) : p.c;
  const auto multiply_by = [&](const Choice& algorithm) {
    if (!algorithm) return CUBLAS_STATUS_NOT_SUPPORTED;
    return cublasLtMatmul(handle(), &d.operation, &one, p.b, &d.b, p.a, &d.a, &beta, p.addend ? p.addend : c, &d.c, c,
                          &d.c, &*algorithm, workspace, static_cast<std::size_t>(kMultiplyWorkspaceBytes),
                          stream_of(context));
  };
  cublasStatus_t status = multiply_by(choice_for(with_rows_in_steps(p)));
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)  // not for this number of rows
    status = multiply_by(choice_for(p));
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("gemm: cuBLASLt reports \"{}\" of a product of {} by {} by {} of {} to {}{}", cublasLtGetStatusString(status),
         p.m, p.k, p.n, name_of(p.bf16, p.tf32), name_of(p.c_rounded != nullptr), with_bias(p.bias != nullptr));
}

std::string product_library() { return fmt::format("cuBLASLt {}", cublasLtGetVersion()); }

std::string product_algorithms() {
  std::string text = product_library() + "\n";
  for (const auto& [shape, algorithm] : choices())
    if (algorithm) text += describe(shape, *algorithm);
  return text;
}

}  // namespace switchyard::kernels::cuda
