// switchyard bench step: training steps against the rate that their matrix products alone reach.
#include <algorithm>
#include <numeric>
#include <optional>

#include "app/bench.hpp"
#include "app/bench_data.hpp"
#include "app/large_product.hpp"
#include "app/onednn_product.hpp"
#include "app/own_product.hpp"
#include "app/renewed_line.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "app/timed_step.hpp"
#include "model/products.hpp"
#include "network/model_options.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

// The matrix products of one microbatch: oneDNN's, on every thread of this rank at once; on a GPU the program's own,
// which are cuBLASLt's.
class ProductsAlone {
 public:
  ProductsAlone(const Context& context, const std::vector<ProductShape>& shapes, kernels::Precision precision)
      : context_(context), shapes_(shapes), seconds_(shapes.size()) {
    for (const ProductShape& shape : shapes) {
      if (context.device == Device::kCuda) on_gpu_.emplace_back(context, shape, precision);
      for (int thread = 0; thread < num_threads(); ++thread) products_.emplace_back(shape, precision);
    }
  }

  // A few of each shape.
  void measure() {
    for (std::size_t i = 0; i < shapes_.size(); ++i)
      for (int repeat = 0; repeat < 3; ++repeat)
        seconds_[i].push_back(context_.device == Device::kCuda ? on_gpu_[i].seconds_on_gpu(context_)
                                                               : seconds_on_threads(i));
  }

  // Of a whole microbatch, by the median of each shape.
  double seconds() const {
    double sum = 0;
    for (std::size_t i = 0; i < shapes_.size(); ++i) sum += static_cast<double>(shapes_[i].count) * median(seconds_[i]);
    return sum;
  }

 private:
  int num_threads() const { return context_.device == Device::kCuda ? 0 : context_.threads->num_threads(); }

  double seconds_on_threads(std::size_t shape) {
    const auto threads = static_cast<std::size_t>(num_threads());
    const double start = seconds_now();
    context_.threads->parallel_for(
        num_threads(), [&](Index thread) { products_[shape * threads + static_cast<std::size_t>(thread)].run(); });
    return (seconds_now() - start) / num_threads();
  }

  const Context& context_;
  std::vector<ProductShape> shapes_;
  std::vector<OneDnnProduct> products_;       // by shape, then thread
  std::vector<OwnProduct> on_gpu_;            // by shape
  std::vector<std::vector<double>> seconds_;  // by shape
};

double flop_of(const std::vector<ProductShape>& shapes) {
  return std::accumulate(shapes.begin(), shapes.end(), 0.0,
                         [](double sum, const ProductShape& shape) { return sum + shape.flop(); });
}

double sum_over_ranks(World& world, double value) {
  std::vector<double> all(static_cast<std::size_t>(world.size()));
  all_gather(world.comm(), "bench", &value, sizeof(value), all.data());
  return std::accumulate(all.begin(), all.end(), 0.0);
}

void print_heading(const World& world, const Config& config, const BenchOptions& options, double flop_per_image) {
  fmt::print("{}\n{} x {}, batch {}, microbatch {}", bench_heading(config, options), plural(world.size(), "rank"),
             plural(config.parallel.threads, "thread"), config.train.batch, config.train.microbatch);
  if (config.ffn.kind == "moe") fmt::print(", experts over {}", plural(config.parallel.experts, "rank"));
  fmt::print("; {}, medians\n{:.3f} GFLOP of matrix products an image\n\n", plural(options.steps, "step"),
             flop_per_image / 1e9);
}

// A table of milliseconds a step: phases across, kernels down, largest first.
void print_profile(const Profile& profile, Index num_steps) {
  std::vector<std::string_view> phases(profile.phases.size());
  std::map<std::string_view, double> kernel_seconds;
  double step_seconds = 0;
  for (const auto& [name, phase] : profile.phases) {
    phases[static_cast<std::size_t>(phase.place)] = name;
    step_seconds += phase.seconds;
    for (const auto& [kernel, seconds] : phase.kernels) kernel_seconds[kernel] += seconds;
  }
  std::vector<std::pair<std::string_view, double>> kernels(kernel_seconds.begin(), kernel_seconds.end());
  std::sort(kernels.begin(), kernels.end(), [](const auto& a, const auto& b) { return a.second > b.second; });

  const double milliseconds = 1e3 / static_cast<double>(num_steps);
  const auto print_row = [&](std::string_view name, double total, const auto& seconds_in_phase) {
    fmt::print("{:<28}", name);
    for (const std::string_view phase : phases) {
      const double seconds = seconds_in_phase(profile.phases.at(phase));
      fmt::print("{:>10}", seconds == 0 ? "" : fmt::format("{:.2f}", seconds * milliseconds));
    }
    fmt::print("{:>10.2f}{:>7.1f} %\n", total * milliseconds, 100 * total / step_seconds);
  };
  const auto in_kernels = [](const Profile::Phase& phase) {
    return std::accumulate(phase.kernels.begin(), phase.kernels.end(), 0.0,
                           [](double sum, const auto& kernel) { return sum + kernel.second; });
  };

  fmt::print("\nrank 0, milliseconds a step, mean of {}\n{:<28}", num_steps, "");
  for (const std::string_view phase : phases) fmt::print("{:>10}", phase);
  fmt::print("{:>10}{:>9}\n", "step", "share");
  double rest = step_seconds;
  for (const auto& [kernel, seconds] : kernels) {
    rest -= seconds;
    print_row(kernel, seconds, [name = kernel](const Profile::Phase& phase) {
      const auto found = phase.kernels.find(name);
      return found == phase.kernels.end() ? 0.0 : found->second;
    });
  }
  print_row("outside kernels", rest, [&](const Profile::Phase& phase) { return phase.seconds - in_kernels(phase); });
  print_row("all", step_seconds, [](const Profile::Phase& phase) { return phase.seconds; });
}

}  // namespace

int bench_step(World& world, const Config& config, const BenchOptions& options) {
  const Dataset data = world.together([&] { return data_for_bench(config); });
  world.together([&] { require_a_batch(config, data); });
  const ModelOptions model = world.together([&] {
    ParameterTable table;
    return make_model(model_options(config, {data.height, data.width, data.channels, data.classes}), table)->options();
  });
  const std::vector<ProductShape> shapes = training_products(model, config.train.microbatch);
  const double flop_per_image =
      flop_of(shapes) / static_cast<double>(config.train.microbatch) + attention_training_flop(model);
  if (world.speaks()) print_heading(world, config, options, flop_per_image);

  RenewedLine progress(world.speaks());
  progress.show("preparing");
  Session session(config, world);
  const auto trainer =
      world.together([&] { return std::make_unique<Trainer>(config, session.context, session.mesh, data); });
  const auto products = world.together(
      [&] { return std::make_unique<ProductsAlone>(session.context, shapes, product_precision(config)); });

  std::optional<LargeProduct> large_product;
  if (session.context.device == Device::kCuda)
    world.together([&] { large_product.emplace(session.context, product_precision(config)); });

  std::vector<double> seconds, exchange, reduce, wait, large;
  // A gate gives experts new numbers of tokens in each step, for which a GPU's library first chooses its algorithms.
  const bool new_shapes = session.context.device == Device::kCuda && trainer->model().num_kinds_of_steps() == 0;
  const int warm_ups = new_shapes ? 5 : 2;
  for (int i = 1; i <= warm_ups; ++i) {
    progress.show(fmt::format("warming up, step {} of {}", i, warm_ups));
    trainer->train_step();
  }
  Profile profile;
  if (options.profile) session.context.profile = &profile;
  const auto batch = static_cast<double>(config.train.batch);
  for (Index i = 0; i < options.steps; ++i) {
    progress.show(fmt::format("step {} of {}{}", i + 1, options.steps,
                              seconds.empty() ? "" : fmt::format(", {:.1f} images/s so far", batch / median(seconds))));
    const StepMetrics metrics = timed_step(world, session.context, *trainer);
    seconds.push_back(metrics.seconds);
    exchange.push_back(metrics.phases.exchange);
    reduce.push_back(metrics.phases.reduce);
    wait.push_back(metrics.phases.wait);
    barrier(world.comm(), "bench");
    products->measure();
    if (large_product) large.push_back(large_product->seconds());
  }

  const double step = median(seconds);
  const double rate = batch * flop_per_image / step;
  const double limit = sum_over_ranks(world, flop_of(shapes) / products->seconds());
  const double large_limit = large_product ? sum_over_ranks(world, large_product->flop() / median(large)) : 0;
  if (!world.speaks()) return 0;
  progress.clear();
  fmt::print("{:<16}{:>10}{:>12}{:>12}\n", "", "seconds", "images/s", "GFLOP/s");
  fmt::print("{:<16}{:>10.4f}{:>12.1f}{:>12.1f}\n", "training step", step, batch / step, rate / 1e9);
  fmt::print("{:<16}{:>10.4f}{:>12.1f}{:>12.1f}\n", "products alone", batch * flop_per_image / limit,
             limit / flop_per_image, limit / 1e9);
  fmt::print("{:<16}{:>34.2f}\n", "share", rate / limit);
  if (large_product) {
    fmt::print("{:<16}{:>34.1f}    {}\n", "large product", large_limit / 1e9, large_product->shape());
    fmt::print("{:<16}{:>34.2f}\n", "share of that", rate / large_limit);
  }
  fmt::print("\n");
  fmt::print("rank 0: compute {:.4f} s, exchange {:.4f} s, reduce {:.4f} s, wait {:.4f} s\n",
             step - median(exchange) - median(reduce) - median(wait), median(exchange), median(reduce), median(wait));
  if (options.profile) print_profile(profile, options.steps);
  return 0;
}

}  // namespace switchyard
