#include "model/packed_weights.hpp"

namespace switchyard {

kernels::Gemm PackedWeights::with_packed_b(kernels::Gemm product) {
  Pack& pack = packs_[{product.b, product.transpose_b, product.precision}];
  if (pack.version != parameters_.version()) {
    const Index bytes = kernels::packed_b_bytes(context_, product);
    if (pack.data.size() != bytes) pack.data = kernels::Array<std::byte>(context_.device, bytes);
    kernels::pack_b(context_, product, pack.data.data());
    pack.version = parameters_.version();
  }
  product.packed_b = pack.data.data();
  return product;
}

}  // namespace switchyard
