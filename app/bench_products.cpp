// switchyard bench products: the program's matrix products against oneDNN's, shape by shape.
#include <algorithm>

#include "app/bench.hpp"
#include "app/onednn_product.hpp"
#include "app/own_product.hpp"
#include "app/session.hpp"
#include "core/clock.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

// Of one product; short ones run a few times, so that the clock's own cost does not show.
template <typename Run>
double seconds_of(const ProductShape& shape, const Run& run) {
  const double flop = shape.flop() / static_cast<double>(shape.count);
  const int times = std::max(1, static_cast<int>(2e7 / flop));
  const double start = seconds_now();
  for (int i = 0; i < times; ++i) run();
  return (seconds_now() - start) / times;
}

int time_products(World& world, const Config& config, const BenchOptions& options) {
  ThreadPool one_thread(1);
  const Context context{Device::kCpu, &one_thread};
  ParameterTable table;
  const auto model = make_model(model_options(config, shape_of_data(config)), table);
  const kernels::Precision precision = product_precision(config);
  if (world.speaks())
    fmt::print(
        "{}\nmicrobatch {}: products on one thread of each rank, GFLOP/s, medians of {}\n\n{:>6}{:>6}{:>6}  {:<9}"
        "{:>8}{:>8}{:>8}\n",
        bench_heading(config, options), config.train.microbatch, options.steps, "m", "n", "k", "", "own", "oneDNN",
        "ratio");
  double own_total = 0, peer_total = 0;
  for (const ProductShape& shape : training_products(model->options(), config.train.microbatch)) {
    const OwnProduct own(context, shape, precision);
    OneDnnProduct peer(shape, precision);
    std::vector<double> own_seconds, peer_seconds;
    for (Index i = 0; i < options.steps; ++i) {
      own_seconds.push_back(seconds_of(shape, [&] { own.run(context); }));
      peer_seconds.push_back(seconds_of(shape, [&] { peer.run(); }));
    }
    const double flop = shape.flop() / static_cast<double>(shape.count);
    const double own_median = median(own_seconds), peer_median = median(peer_seconds);
    own_total += static_cast<double>(shape.count) * own_median;
    peer_total += static_cast<double>(shape.count) * peer_median;
    if (world.speaks())
      fmt::print("{:>6}{:>6}{:>6}  {:<9}{:>8.1f}{:>8.1f}{:>8.2f}\n", shape.m, shape.n, shape.k,
                 shape.transpose_a   ? "A^T B"
                 : shape.transpose_b ? "A B^T"
                                     : "A B",
                 flop / own_median / 1e9, flop / peer_median / 1e9, peer_median / own_median);
  }
  if (world.speaks()) fmt::print("\nall of a microbatch: {:.2f} of oneDNN's rate\n", peer_total / own_total);
  return 0;
}

}  // namespace

int bench_products(World& world, const Config& config, const BenchOptions& options) {
  return world.together([&] { return time_products(world, config, options); });
}

}  // namespace switchyard
