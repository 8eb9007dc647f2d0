// What `switchyard bench` holds a GPU's products and attention against: its own rate in one product large enough to
// keep all of it busy.
#pragma once

#include <optional>

#include "app/own_product.hpp"

namespace switchyard {

class LargeProduct {
 public:
  // 8192 x 8192 x 8192, or a half, a quarter and so on of that where a GPU needs long for it.
  LargeProduct(const Context& context, kernels::Precision precision) : context_(context) {
    constexpr Index kSmallest = 128, kLargest = 8192;
    constexpr double kLong = 1e-2;  // seconds
    for (extent_ = kSmallest;; extent_ *= 2) {
      // Both operands along k, the layout that tensor cores read best.
      product_.emplace(context, ProductShape{.transpose_b = true, .m = extent_, .n = extent_, .k = extent_}, precision);
      run();  // the first call chooses an algorithm
      if (extent_ == kLargest || seconds() > kLong) return;
    }
  }

  void run() const { product_->run(context_); }
  double seconds() const {
    return kernels::seconds_of(context_, [this] { run(); });
  }
  double flop() const { return 2 * static_cast<double>(extent_) * static_cast<double>(extent_ * extent_); }
  // "8192 x 8192 x 8192"
  std::string shape() const { return fmt::format("{0} x {0} x {0}", extent_); }

 private:
  const Context& context_;
  Index extent_ = 0;
  std::optional<OwnProduct> product_;
};

}  // namespace switchyard
