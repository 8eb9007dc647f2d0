// switchyard bench products: the program's matrix products against oneDNN's, or those of a GPU against a large one,
// shape by shape.
#include <algorithm>
#include <optional>

#include "app/bench.hpp"
#include "app/large_product.hpp"
#include "app/onednn_product.hpp"
#include "app/own_product.hpp"
#include "app/session.hpp"
#include "core/clock.hpp"
#include "network/model_options.hpp"

namespace switchyard {

namespace {

double flop_of_one(const ProductShape& shape) { return shape.flop() / static_cast<double>(shape.count); }

// Of one product; short ones run a few times, so that the clock's own cost does not show.
template <typename Run>
double seconds_of(const ProductShape& shape, const Run& run) {
  const int times = std::max(1, static_cast<int>(2e7 / flop_of_one(shape)));
  const double start = seconds_now();
  for (int i = 0; i < times; ++i) run();
  return (seconds_now() - start) / times;
}

// Of one product: oneDNN's of the same shape, or, on a GPU, what it would take at the large product's rate.
class Peer {
 public:
  Peer(const ProductShape& shape, kernels::Precision precision, const LargeProduct* large_product)
      : shape_(shape), large_product_(large_product) {
    if (!large_product) onednn_.emplace(shape, precision);
  }
  double seconds() {
    if (onednn_) return seconds_of(shape_, [&] { onednn_->run(); });
    return large_product_->seconds() * flop_of_one(shape_) / large_product_->flop();
  }

 private:
  ProductShape shape_;
  const LargeProduct* large_product_;
  std::optional<OneDnnProduct> onednn_;
};

void print_heading(const Config& config, const BenchOptions& options, const LargeProduct* large_product) {
  fmt::print("{}\nmicrobatch {}: products on one {} of each rank, GFLOP/s, medians of {}\n",
             bench_heading(config, options), config.train.microbatch, large_product ? "GPU" : "thread", options.steps);
  if (large_product)
    fmt::print("{}; large: a product of {}\n", kernels::device_name(Device::kCuda), large_product->shape());
  fmt::print("\n{:>6}{:>6}{:>6}  {:<9}{:>9}{:>9}{:>8}\n", "m", "n", "k", "", "own", large_product ? "large" : "oneDNN",
             "ratio");
}

int time_products(World& world, const Context& context, const Config& config, const BenchOptions& options) {
  ParameterTable table;
  const auto model = make_model(model_options(config, shape_of_data(config)), table);
  const kernels::Precision precision = product_precision(config);
  std::optional<LargeProduct> made;
  if (context.device == Device::kCuda) made.emplace(context, precision);
  const LargeProduct* const large_product = made ? &*made : nullptr;
  if (world.speaks()) print_heading(config, options, large_product);
  double own_total = 0, peer_total = 0;
  for (const ProductShape& shape : training_products(model->options(), config.train.microbatch)) {
    const OwnProduct own(context, shape, precision);
    Peer peer(shape, precision, large_product);
    own.run(context);  // a GPU's first chooses an algorithm
    std::vector<double> own_seconds, peer_seconds;
    for (Index i = 0; i < options.steps; ++i) {
      own_seconds.push_back(large_product ? own.seconds_on_gpu(context) : seconds_of(shape, [&] { own.run(context); }));
      peer_seconds.push_back(peer.seconds());
    }
    const double flop = flop_of_one(shape);
    const double own_median = median(own_seconds), peer_median = median(peer_seconds);
    own_total += static_cast<double>(shape.count) * own_median;
    peer_total += static_cast<double>(shape.count) * peer_median;
    if (world.speaks())
      fmt::print("{:>6}{:>6}{:>6}  {:<9}{:>9.1f}{:>9.1f}{:>8.2f}\n", shape.m, shape.n, shape.k,
                 shape.transpose_a   ? "A^T B"
                 : shape.transpose_b ? "A B^T"
                                     : "A B",
                 flop / own_median / 1e9, flop / peer_median / 1e9, peer_median / own_median);
  }
  if (world.speaks())
    fmt::print("\nall of a microbatch: {:.2f} of {} rate\n", peer_total / own_total,
               large_product ? "the large product's" : "oneDNN's");
  return 0;
}

}  // namespace

int bench_products(World& world, const Config& config, const BenchOptions& options) {
  ThreadPool one_thread(1);
  const RankDevice device(config, world);
  const Context context{device.device(), &one_thread, device.stream()};
  return world.together([&] { return time_products(world, context, config, options); });
}

}  // namespace switchyard
