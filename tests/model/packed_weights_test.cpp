// A weight is packed as often as the device has forms for it: on a GPU once, with its bias, for all of its products.
#include <gtest/gtest.h>

#include "kernels/api/device.hpp"
#include "model/packed_weights.hpp"
#include "support/ranks.hpp"

namespace switchyard {
namespace {

using kernels::Gemm;

constexpr Index kRows = 8, kIn = 24, kOut = 20;

class PackedWeightsTest : public ::testing::TestWithParam<Device> {
 protected:
  PackedWeightsTest() {
    table_.add({"w", {kOut, kIn}, false, {}});
    table_.add({"b", {kOut}, false, {}});
    store_.emplace(GetParam(), table_, 0, 0);
    store_->initialize(context_, 1);
    packed_.emplace(context_, *store_);
  }

  const void* pack(Gemm product) {
    packed_->pack(std::span(&product, 1));
    return product.packed_b;
  }

  ThreadPool threads_{1};
  const Context context_{.device = GetParam(), .threads = &threads_};
  ParameterTable table_;
  std::optional<ParameterStore> store_;
  std::optional<PackedWeights> packed_;
};

TEST_P(PackedWeightsTest, BothPassesReadOnePackWhereTheDeviceHasOneForm) {
  const kernels::LinearProducts products{kRows, kIn, kOut, kernels::Precision::kBf16};
  kernels::Array<float> d_x(GetParam(), kRows * kIn);
  kernels::Array<kernels::Bf16> y(GetParam(), kRows * kernels::rounded_cols(kOut));
  Gemm forward = products.forward(nullptr, store_->value(0), kernels::NewOperand{nullptr, y.data()}, store_->value(1));
  const Gemm backward = products.input_gradient(nullptr, store_->value(0), d_x.data());
  const bool one_form = GetParam() == Device::kCuda;
  if (!one_form) forward.c = d_x.data(), forward.c_rounded = nullptr;
  for (int step = 0; step < 2; ++step) {
    const void* const of_forward = pack(forward);
    EXPECT_EQ(pack(backward) == of_forward, one_form);
    EXPECT_EQ(packed_->bytes(), kernels::packed_b_bytes(context_, forward) +
                                    (one_form ? 0 : kernels::packed_b_bytes(context_, backward)));
    store_->values();  // they change
    // The backward product comes first: what it asks for holds the bias as well.
    EXPECT_EQ(pack(backward) == of_forward, one_form);
    store_->values();
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, PackedWeightsTest, ::testing::Values(Device::kCpu, Device::kCuda),
                         [](const auto& device) { return device.param == Device::kCpu ? "Cpu" : "EmulatedGpu"; });

}  // namespace
}  // namespace switchyard
