#include "model/packed_weights.hpp"

#include <algorithm>

namespace switchyard {

void PackedWeights::pack(std::span<kernels::Gemm> products) {
  stale_.clear();
  for (kernels::Gemm& product : products) {
    if (product.m == 0) continue;
    if (!packs_.contains(key(product.b, product))) make_room(product);
    if (uses_) uses_->insert(key(product.b, product));
    Pack& pack = packs_.at(key(product.b, product));
    if (pack.version != parameters_.version()) {
      stale_.push_back({product, pack.data.data()});
      pack.product = product;
    }
    pack.version = parameters_.version();
    product.packed_b = pack.data.data();
  }
  if (!stale_.empty()) kernels::pack_b(context_, stale_);
}

void PackedWeights::refresh(const Uses& uses) {
  stale_.clear();
  for (const Key& key : uses) {
    Pack& pack = packs_.at(key);
    if (pack.version != parameters_.version()) stale_.push_back({pack.product, pack.data.data()});
    pack.version = parameters_.version();
  }
  if (!stale_.empty()) kernels::pack_b(context_, stale_);
}

Index PackedWeights::bytes() const {
  Index sum = 0;
  for (const auto& [key, pack] : packs_) sum += pack.data.size();
  return sum;
}

void PackedWeights::make_room(const kernels::Gemm& product) {
  const Index bytes = kernels::packed_b_bytes(context_, product);
  const auto make_one = [&](const float* weight) {
    packs_[key(weight, product)].data = kernels::Array<std::byte>(context_.device, bytes);
  };
  const ParameterTable& table = parameters_.table();
  for (ParameterId id = 0; id < table.size(); ++id) {
    const Index slices = parameters_.local_slices(id);
    const float* first = parameters_.value(id);
    if (product.b < first || product.b >= first + slices * table[id].slice_size()) continue;
    stale_.reserve(std::max(stale_.capacity(), static_cast<std::size_t>(slices)));
    for (Index slice = 0; slice < slices; ++slice) make_one(parameters_.value(id, slice));
    return;
  }
  make_one(product.b);
}

}  // namespace switchyard
