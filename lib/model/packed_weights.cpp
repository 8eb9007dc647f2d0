#include "model/packed_weights.hpp"

#include <algorithm>

namespace switchyard {

void PackedWeights::pack(std::span<kernels::Gemm> products) {
  stale_.clear();
  for (kernels::Gemm& product : products) {
    if (product.m == 0) continue;
    const auto found = find(product);
    Pack& pack = found->second;
    if (uses_) uses_->insert(found->first);
    if (pack.version != parameters_.version()) {
      if (found->first == key(product.b, product)) pack.product = product;
      stale_.push_back({pack.product, pack.data.data()});
    }
    pack.version = parameters_.version();
    product.packed_b = pack.data.data();
  }
  if (!stale_.empty()) kernels::pack_b(context_, stale_);
}

std::map<PackedWeights::Key, PackedWeights::Pack>::iterator PackedWeights::find(const kernels::Gemm& product) {
  const Key own = key(product.b, product);
  Key with_bias = own;
  std::get<kernels::PackedForm>(with_bias).with_bias = true;
  if (const auto found = packs_.find(with_bias); found != packs_.end() && found->second.product.b) return found;
  if (!packs_.contains(own)) make_room(product);
  return packs_.find(own);
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
