// switchyard bench, and bench step: training steps against the rate that their matrix products alone reach.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "app/bench.hpp"
#include "app/commands.hpp"
#include "app/onednn_product.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "config/command_line.hpp"
#include "model/products.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;

constexpr const char* kHelp =
    "switchyard bench step --config FILE [--steps N] [--KEY VALUE ...]\n"
    "switchyard bench products --config FILE [--steps N] [--KEY VALUE ...]\n\n"
    "step: times N training steps (10 unless told) of the configured model on data of its shape, and in turn with\n"
    "them the matrix products alone, at the model's own shapes, as oneDNN computes them. Prints images/s, GFLOP/s,\n"
    "and the share of oneDNN's rate.\n\n"
    "products: times this program's matrix products and oneDNN's in turn, N times each, shape by shape.\n";

// oneDNN's matrix products of one microbatch, on every thread of this rank at once.
class ProductsAlone {
 public:
  ProductsAlone(const Context& context, const std::vector<ProductShape>& shapes, kernels::Precision precision)
      : context_(context), shapes_(shapes), seconds_(shapes.size()) {
    for (const ProductShape& shape : shapes)
      for (int thread = 0; thread < context.threads->num_threads(); ++thread) products_.emplace_back(shape, precision);
  }

  // A few of each shape.
  void measure() {
    const Index num_threads = context_.threads->num_threads();
    for (std::size_t i = 0; i < shapes_.size(); ++i)
      for (int repeat = 0; repeat < 3; ++repeat) {
        const double start = seconds_now();
        context_.threads->parallel_for(num_threads, [&](Index thread) {
          products_[i * static_cast<std::size_t>(num_threads) + static_cast<std::size_t>(thread)].run();
        });
        seconds_[i].push_back((seconds_now() - start) / static_cast<double>(num_threads));
      }
  }

  double flop() const {
    return std::accumulate(shapes_.begin(), shapes_.end(), 0.0,
                           [](double sum, const ProductShape& shape) { return sum + shape.flop(); });
  }
  // Of a whole microbatch, by the median of each shape.
  double seconds() const {
    double sum = 0;
    for (std::size_t i = 0; i < shapes_.size(); ++i) sum += static_cast<double>(shapes_[i].count) * median(seconds_[i]);
    return sum;
  }

 private:
  const Context& context_;
  std::vector<ProductShape> shapes_;
  std::vector<OneDnnProduct> products_;       // by shape, then thread
  std::vector<std::vector<double>> seconds_;  // by shape
};

// Images of the configured kind's shape; their content does not matter to the time.
Dataset data_for_bench(const Config& config) {
  const std::optional<ImageShape> shape = known_shape(data_options(config));
  if (!shape) return load_dataset(data_options(config));
  Dataset data{"random images", shape->height, shape->width, shape->channels, shape->classes};
  data.train.count = config.train.batch;
  data.test.count = 1;
  for (Split* split : {&data.train, &data.test}) {
    split->images.resize(static_cast<std::size_t>(split->count * shape->height * shape->width * shape->channels));
    for (std::size_t i = 0; i < split->images.size(); ++i)
      split->images[i] = static_cast<std::uint8_t>(random_words({}, 1, static_cast<std::uint32_t>(i))[0]);
    for (Index i = 0; i < split->count; ++i) split->labels.push_back(static_cast<std::int32_t>(i % shape->classes));
  }
  return data;
}

double sum_over_ranks(World& world, double value) {
  std::vector<double> all(static_cast<std::size_t>(world.size()));
  all_gather(world.comm(), "bench", &value, sizeof(value), all.data());
  return std::accumulate(all.begin(), all.end(), 0.0);
}

int bench_step(World& world, const Config& config, Index num_steps) {
  const Dataset data = world.together([&] { return data_for_bench(config); });
  Session session(config, world);
  const auto trainer =
      world.together([&] { return std::make_unique<Trainer>(config, session.context, session.mesh, data); });
  const VitOptions& model = trainer->model().options();
  const auto products = world.together([&] {
    return std::make_unique<ProductsAlone>(session.context,
                                           training_products(model, config.train.microbatch, num_segments(config)),
                                           product_precision(config));
  });

  std::vector<double> seconds, exchange, reduce, wait;
  trainer->train_step(false);
  trainer->train_step(false);
  for (Index i = 0; i < num_steps; ++i) {
    barrier(world.comm(), "bench");
    const StepMetrics metrics = trainer->train_step(false);
    seconds.push_back(metrics.seconds);
    exchange.push_back(metrics.phases.exchange);
    reduce.push_back(metrics.phases.reduce);
    wait.push_back(metrics.phases.wait);
    barrier(world.comm(), "bench");
    products->measure();
  }

  const auto batch = static_cast<double>(config.train.batch);
  const double flop_per_image =
      products->flop() / static_cast<double>(config.train.microbatch) + attention_training_flop(model);
  const double step = median(seconds);
  const double rate = batch * flop_per_image / step;
  const double limit = sum_over_ranks(world, products->flop() / products->seconds());
  if (!world.speaks()) return 0;
  fmt::print("{}\n{} x {}, batch {}, microbatch {}, experts over {}; {} steps, medians\n", describe_model(config),
             plural(world.size(), "rank"), plural(config.parallel.threads, "thread"), config.train.batch,
             config.train.microbatch, plural(config.parallel.experts, "rank"), num_steps);
  fmt::print("{:.3f} GFLOP of matrix products an image\n\n", flop_per_image / 1e9);
  fmt::print("{:<16}{:>10}{:>12}{:>12}\n", "", "seconds", "images/s", "GFLOP/s");
  fmt::print("{:<16}{:>10.4f}{:>12.1f}{:>12.1f}\n", "training step", step, batch / step, rate / 1e9);
  fmt::print("{:<16}{:>10.4f}{:>12.1f}{:>12.1f}\n", "products alone", batch * flop_per_image / limit,
             limit / flop_per_image, limit / 1e9);
  fmt::print("{:<16}{:>34.2f}\n\n", "share", rate / limit);
  fmt::print("rank 0: compute {:.4f} s, exchange {:.4f} s, reduce {:.4f} s, wait {:.4f} s\n",
             step - median(exchange) - median(reduce) - median(wait), median(exchange), median(reduce), median(wait));
  return 0;
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Index num_segments(const Config& config) {
  const bool one_expert_a_batch = config.ffn.router == "random" && config.ffn.granularity == "batch";
  return one_expert_a_batch ? 1 : config.ffn.experts;
}

int bench_command(World& world, const std::vector<std::string>& arguments) {
  po::options_description own;
  own.add_options()("steps", po::value<Index>()->default_value(10), "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own, 1); });
  if (line.help) {
    if (world.speaks()) fmt::print("{}", kHelp);
    return 0;
  }
  const Config config = world.together([&] {
    if (line.positional.empty() || (line.positional[0] != "step" && line.positional[0] != "products"))
      fail_usage("bench: say what to time: switchyard bench step --config FILE, or bench products --config FILE.");
    if (line.options["steps"].as<Index>() < 1) fail_usage("--steps: at least 1");
    Config checked = config_from(line);
    check_ranks(checked, world.size());
    return checked;
  });
  world.comm().set_timeout(config.parallel.timeout);
  const Index steps = line.options["steps"].as<Index>();
  if (line.positional[0] == "products") return world.together([&] { return bench_products(world, config, steps); });
  return bench_step(world, config, steps);
}

}  // namespace switchyard
