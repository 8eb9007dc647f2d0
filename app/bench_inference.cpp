// switchyard bench inference: what mixtures of experts and trees save in evaluation, over batch sizes.
#include <unistd.h>

#include <algorithm>

#include "app/bench.hpp"
#include "app/bench_file.hpp"
#include "app/inference_network.hpp"
#include "app/renewed_line.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "kernels/api/device.hpp"
#include "network/model_options.hpp"

namespace switchyard {

namespace {

constexpr double kShortest = 2e-4;  // seconds that the clock runs at a time
constexpr Index kWidestLeaf = 32;

struct Contender {
  std::string name;
  Index leaf = 0;  // 0: dense
  ModelOptions options;
};

Index training_width(const Config& config) {
  return config.ffn.kind == "fff" ? config.ffn.leaf << tree_depth(config.ffn) : config.ffn.hidden;
}

// The depth of a tree of such leaves; 0: there is none.
Index depth_of(Index width, Index leaf) {
  Index depth = 0;
  while (leaf << depth < width) ++depth;
  return leaf << depth == width ? depth : 0;
}

std::vector<Index> default_leaves(Index width) {
  std::vector<Index> leaves;
  for (Index leaf = kWidestLeaf; leaf > 0; leaf /= 2)
    if (depth_of(width, leaf) > 0) leaves.push_back(leaf);
  return leaves;
}

ModelOptions dense_of(ModelOptions options, Index width) {
  options.ffn.kind = "dense";
  options.ffn.hidden = width;
  options.ffn.num_experts = 1;
  options.mixture_every = 1;
  options.ffn.activation = kernels::Activation::kRelu;
  return options;
}

std::vector<Contender> contenders(const Config& config, const ModelOptions& model, const BenchOptions& options) {
  const Index width = training_width(config);
  std::vector<Contender> all = {{"dense", 0, dense_of(model, width)}};
  for (Index leaf : options.leaves.empty() ? default_leaves(width) : options.leaves) {
    Contender mixture{"moe top-1", leaf, all[0].options};
    FfnOptions& ffn = mixture.options.ffn;
    ffn.kind = "moe";
    ffn.hidden = leaf;
    ffn.num_experts = width / leaf;
    ffn.average_inference = false;
    ffn.shared = 0;
    if (config.ffn.kind != "moe") ffn.router.name = "top_k";
    const Index most = std::min(experts_per_token(ffn.router), ffn.num_experts);
    ffn.router.top_k = 1;
    all.push_back(mixture);
    if (config.ffn.kind == "moe" && most > 1) {
      mixture.name = fmt::format("moe top-{}", most);
      ffn.router.top_k = most;
      all.push_back(mixture);
    }
    Contender tree{"fff", leaf, all[0].options};
    tree.options.ffn.kind = "fff";
    tree.options.ffn.num_experts = width / leaf;
    tree.options.ffn.tree.depth = depth_of(width, leaf);
    tree.options.ffn.tree.leaf = leaf;
    all.push_back(tree);
  }
  return all;
}

double seconds_of(const Context& context, InferenceNetwork& network, kernels::Arena& arena, Index batch, int times) {
  const auto run_all = [&] {
    for (int i = 0; i < times; ++i) network.run(arena, batch);
  };
  return kernels::seconds_of(context, run_all) / times;
}

struct Prepared {
  std::unique_ptr<InferenceNetwork> network;
  Index activation_bytes = 0;
  int times = 1;  // between two looks at the clock
};

// The first call packs weights and grows scratch memory, the second shows how long a call takes.
void warm_up(const Context& context, Prepared& one, kernels::Arena& arena, Index batch) {
  one.network->run(arena, batch);
  arena.restart_most();
  const double seconds = seconds_of(context, *one.network, arena, batch, 1);
  one.activation_bytes = arena.most_bytes();
  one.times = static_cast<int>(std::clamp(kShortest / std::max(seconds, 1e-9), 1.0, 1e4));
}

struct Rounds {
  std::vector<double> dense, own;  // seconds of a batch

  static double fastest(const std::vector<double>& seconds) {
    return *std::min_element(seconds.begin(), seconds.end());
  }
  double speed_up() const { return median(dense) / median(own); }
  double speed_up_least() const { return fastest(dense) / fastest(own); }
};

struct Columns {
  std::vector<std::string> part, network;
  std::vector<Index> leaf, threads, batch;
  std::vector<double> seconds, least, rate, speed_up, speed_up_least, weights, activations;

  std::vector<io::TableColumn> all() const {
    using namespace io::schema;
    return {column(kInferencePart, part),        column(kInferenceNetwork, network),
            column(kInferenceLeaf, leaf),        column(kInferenceThreads, threads),
            column(kInferenceBatch, batch),      column(kInferenceSeconds, seconds),
            column(kInferenceLeast, least),      column(kInferenceRate, rate),
            column(kInferenceSpeedUp, speed_up), column(kInferenceSpeedUpLeast, speed_up_least),
            column(kInferenceWeights, weights),  column(kInferenceActivations, activations)};
  }
};

class Benchmark {
 public:
  Benchmark(World& world, const RankDevice& device, const Config& config, const BenchOptions& options,
            const ModelOptions& model)
      : config_(config),
        options_(options),
        context_{device.device(), nullptr, device.stream()},
        arena_(device.device()),
        batches_(options.batches.empty() ? std::vector<Index>{1, 4, 16, 64, 256, 1024, 2048} : options.batches),
        contenders_(contenders(config, model, options)),
        inputs_(context_, model, *std::max_element(batches_.begin(), batches_.end())),
        progress_(world.speaks()) {}

  // part: of all networks, over all batch sizes, on these threads.
  void run(Part part, ThreadPool& threads) {
    context_.threads = &threads;
    print_heading(part);
    std::vector<Prepared> all;
    for (const Contender& one : contenders_)
      all.push_back({std::make_unique<InferenceNetwork>(context_, part, one.options, inputs_, config_.train.microbatch,
                                                        product_precision(config_))});
    for (Index batch : batches_) {
      for (Prepared& one : all) warm_up(context_, one, arena_, batch);
      std::vector<Rounds> rounds(all.size());
      for (std::size_t i = 1; i < all.size(); ++i) {
        progress_.show(fmt::format("batch {}: {}, leaf {}", batch, contenders_[i].name, contenders_[i].leaf));
        for (Index step = 0; step < options_.steps; ++step) {
          rounds[i].dense.push_back(seconds_of(context_, *all[0].network, arena_, batch, all[0].times));
          rounds[i].own.push_back(seconds_of(context_, *all[i].network, arena_, batch, all[i].times));
        }
        rounds[0].own.insert(rounds[0].own.end(), rounds[i].dense.begin(), rounds[i].dense.end());
      }
      rounds[0].dense = rounds[0].own;
      progress_.clear();
      for (std::size_t i = 0; i < all.size(); ++i) add_row(part, contenders_[i], all[i], batch, rounds[i]);
    }
  }

  const Columns& columns() const { return columns_; }

 private:
  void print_heading(Part part) const {
    const FfnOptions layer = layer_options(contenders_[0].options);
    fmt::print("\n{}, {}\n{:<11}{:>5}{:>6}{:>13}{:>11}{:>11}{:>9}{:>8}{:>11}{:>15}\n",
               part == Part::kLayer ? fmt::format("Layer {} -> {} -> {}", layer.width, layer.hidden, layer.out)
                                    : std::string("Whole model"),
               context_.device == Device::kCuda ? kernels::device_name(Device::kCuda)
                                                : plural(context_.threads->num_threads(), "thread"),
               "", "leaf", "batch", "microseconds", "of dense", part == Part::kLayer ? "tokens/s" : "images/s",
               "speed-up", "fastest", "weights MB", "activations kB");
  }

  void add_row(Part part, const Contender& one, const Prepared& prepared, Index batch, const Rounds& rounds) {
    const double seconds = median(rounds.own), rate = static_cast<double>(batch) / seconds,
                 weights = static_cast<double>(prepared.network->weight_bytes()),
                 activations = static_cast<double>(prepared.activation_bytes);
    fmt::print("{:<11}{:>5}{:>6}{:>13.1f}{:>11.1f}{:>11.0f}{:>9.2f}{:>8.2f}{:>11.3f}{:>15.2f}\n", one.name,
               one.leaf > 0 ? std::to_string(one.leaf) : "", batch, seconds * 1e6, median(rounds.dense) * 1e6, rate,
               rounds.speed_up(), rounds.speed_up_least(), weights / 1e6, activations / 1e3);
    columns_.part.emplace_back(part == Part::kLayer ? "layer" : "model");
    columns_.network.push_back(one.name);
    columns_.leaf.push_back(one.leaf);
    columns_.threads.push_back(context_.threads->num_threads());
    columns_.batch.push_back(batch);
    columns_.seconds.push_back(seconds);
    columns_.least.push_back(Rounds::fastest(rounds.own));
    columns_.rate.push_back(rate);
    columns_.speed_up.push_back(rounds.speed_up());
    columns_.speed_up_least.push_back(rounds.speed_up_least());
    columns_.weights.push_back(weights);
    columns_.activations.push_back(activations);
  }

  const Config& config_;
  const BenchOptions& options_;
  Context context_;
  kernels::Arena arena_;
  std::vector<Index> batches_;
  std::vector<Contender> contenders_;
  InferenceInputs inputs_;
  RenewedLine progress_;
  Columns columns_;
};

}  // namespace

void require_one_rank(const World& world, const Config& config, const BenchOptions& options) {
  if (world.size() > 1)
    fail_usage("bench inference: {} were started, but it times one: leave mpirun out.", plural(world.size(), "rank"));
  if (config.model.kind == "patch_cnn")
    fail_usage("bench inference: model.kind = patch_cnn has no tree to compare: take model.kind = vit or mlp.");
  if (config.ffn.kind == "moe" && config.ffn.router == "hash" && config.ffn.hash == "content")
    fail_usage(
        "bench inference: ffn.hash = content: a layer alone has no patches to look at: take ffn.hash = position.");
  const Index width = training_width(config);
  for (Index leaf : options.leaves)
    if (depth_of(width, leaf) == 0)
      fail_usage("--leaves: no tree has {} in leaves of {}: take half of {}, or a quarter, and so on.",
                 plural(width, "hidden unit"), leaf, width);
  if (options.leaves.empty() && default_leaves(width).empty())
    fail_usage("bench inference: a network of {} has no leaves of 32, 16, 8, 4, 2 or 1: {}.",
               plural(width, "hidden unit"),
               width % 2 == 0 ? fmt::format("name some that halve it again and again: --leaves {}", width / 2)
                              : "take an even number of them: --ffn.hidden " + std::to_string(width + 1));
}

int bench_inference(World& world, const Config& config, const BenchOptions& options) {
  BenchFile file(world, options);
  const ModelOptions model = world.together([&] {
    const ModelOptions asked = model_options(config, shape_of_data(config));
    ParameterTable table;
    return make_model(asked, table)->options();
  });
  const RankDevice device(config, world);
  const bool on_gpu = device.device() == Device::kCuda;
  const int most = on_gpu ? 1
                          : static_cast<int>(config.parallel.threads > 1 ? config.parallel.threads
                                                                         : std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  fmt::print("{}\nevaluation, {} in turn with the dense network, medians; models in microbatches of {}\n",
             bench_heading(config, options), plural(options.steps, "step"), config.train.microbatch);
  Benchmark benchmark(world, device, config, options, model);
  for (int num_threads : {1, most}) {
    if (num_threads == 1 && benchmark.columns().part.size() > 0) break;  // that was all
    ThreadPool threads(num_threads);
    for (Part part : {Part::kLayer, Part::kModel}) benchmark.run(part, threads);
  }
  file.write("inference", config, most, benchmark.columns().all());
  return 0;
}

}  // namespace switchyard
