// A training run that takes milliseconds, in any layout: 8x8 images, two blocks 16 wide, with dropout, crops and flips.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "kernels/api/device.hpp"
#include "routing/router.hpp"
#include "support/ranks.hpp"
#include "train/trainer.hpp"

namespace switchyard::testing {

// 24 microbatches of 2 in a batch: blocks of 3 in the reduction tree, shared out by 1, 2, 4 or 8 ranks. 100 training
// samples make two steps an epoch; of the 25 test samples the last microbatch is short, and ranks get unequal shares.
inline Config small_config() {
  Config config;
  config.run.seed = 7;
  config.run.epochs = 4;
  config.data.kind = "synthetic";
  config.data.crop_padding = 2;
  config.data.flip = true;
  config.data.synthetic_samples = 100;
  config.data.synthetic_size = 8;
  config.data.synthetic_channels = 3;
  config.data.synthetic_classes = 5;
  config.model.layers = 2;
  config.model.width = 16;
  config.model.heads = 2;
  config.model.patch = 4;
  config.ffn.hidden = 24;
  config.ffn.experts = 4;
  config.train.batch = 48;
  config.train.microbatch = 2;
  config.train.lr = 1e-2;
  config.train.warmup_steps = 2;
  config.train.weight_decay = 0.01;
  config.train.clip = 1;
  config.train.dropout = 0.2;
  return config;
}

struct Kind {
  std::string name;
  std::function<void(Config&)> set;
};

// Every feed-forward network, every row of the table of routers, and what routers can be told.
inline std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds{{"dense", [](Config& config) { config.ffn.kind = "dense"; }}};
  kinds.push_back({"dense, images turned, with input dropout", [](Config& config) {
                     config.ffn.kind = "dense";
                     config.data.flip_vertical = true;
                     config.data.rotation = 20;
                     config.data.scaling = 0.2;
                     config.train.input_dropout = 0.1;
                   }});
  const auto add = [&](const std::string& router, const std::string& variant,
                       std::function<void(Config::Ffn&)> change) {
    kinds.push_back({router + variant, [=](Config& config) {
                       config.ffn.kind = "moe";
                       config.ffn.router = router;
                       change(config.ffn);
                     }});
  };
  for (const RouterRow& row : router_table()) add(row.name, "", [](Config::Ffn&) {});
  for (const char* granularity : {"sample", "token", "balanced"})
    add("random", std::string(" per ") + granularity, [=](Config::Ffn& ffn) { ffn.granularity = granularity; });
  add("random", " per token with capacity", [](Config::Ffn& ffn) {
    ffn.granularity = "token";
    ffn.capacity_train = ffn.capacity_eval = 0.9;
  });
  add("random", " per token with shared expert", [](Config::Ffn& ffn) {
    ffn.granularity = "token";
    ffn.shared = 1;
  });
  add("random", ", each layer", [](Config::Ffn& ffn) { ffn.draw = "layer"; });
  add("random", " twice, thor", [](Config::Ffn& ffn) { ffn.consistency = 1; });
  add("random", ", each layer, twice, adamix", [](Config::Ffn& ffn) {
    ffn.draw = "layer";
    ffn.consistency = 2;
    ffn.consistency_kind = "adamix";
  });
  add("hash", " of content", [](Config::Ffn& ffn) { ffn.hash = "content"; });
  add("top_k", ", renormalised, z-loss", [](Config::Ffn& ffn) {
    ffn.renormalise = true;
    ffn.z_loss = 0.01;
    ffn.importance_loss = 0.1;
  });
  add("top_k", " of 3, sigmoid, perturbed", [](Config::Ffn& ffn) {
    ffn.top_k = 3;
    ffn.scores = "sigmoid";
    ffn.gate_jitter = 0.1;
    ffn.gate_dropout = 0.1;
  });
  add("top_k", " with capacity", [](Config::Ffn& ffn) { ffn.capacity_train = ffn.capacity_eval = 0.8; });
  add("top_k", " with capacity by token", [](Config::Ffn& ffn) {
    ffn.capacity_train = ffn.capacity_eval = 0.8;
    ffn.capacity_order = "token";
  });
  add("noisy_top_k", " with capacity, without a floor", [](Config::Ffn& ffn) {
    ffn.capacity_train = 1;
    ffn.noise_floor = 0;
  });
  add("loss_free", " of sigmoid", [](Config::Ffn& ffn) { ffn.scores = "sigmoid"; });
  add("switch", " with capacity, shared expert, expert dropout", [](Config::Ffn& ffn) {
    ffn.capacity_train = 1;
    ffn.capacity_eval = 1.5;
    ffn.shared = 1;
    ffn.expert_dropout = 0.4;
  });
  add("switch", " in every other block", [](Config::Ffn& ffn) { ffn.every = 2; });
  const auto add_tree = [&](const std::string& variant, std::function<void(Config&)> change) {
    kinds.push_back({"fff" + variant, [=](Config& config) {
                       config.ffn.kind = "fff";
                       config.ffn.depth = 3;
                       config.ffn.leaf = 4;
                       change(config);
                     }});
  };
  add_tree("", [](Config&) {});
  add_tree(" with region leak in every other block", [](Config& config) {
    config.ffn.region_leak = 0.2;
    config.ffn.every = 2;
  });
  add_tree(", hard", [](Config& config) { config.ffn.tree = "hard"; });
  add_tree(" by itself", [](Config& config) { config.model.kind = "mlp"; });
  kinds.push_back({"mlp", [](Config& config) {
                     config.model.kind = "mlp";
                     config.ffn.kind = "dense";
                     config.ffn.activation = "relu";
                   }});
  const auto add_patch_cnn = [&](const std::string& variant, const std::function<void(Config&)>& change) {
    kinds.push_back({"patch_cnn" + variant, [=](Config& config) {
                       config.data.kind = "clusters";
                       config.data.limit = 100;
                       config.model.kind = "patch_cnn";
                       config.ffn.activation = "cube";
                       config.train.dropout = 0;
                       change(config);
                     }});
  };
  add_patch_cnn(", dense", [](Config& config) { config.ffn.kind = "dense"; });
  add_patch_cnn(", experts, normalized", [](Config& config) {
    config.ffn.kind = "moe";
    config.ffn.router = "patch_sum";
    config.train.optimizer = "normalized";
  });
  add("switch", " with gating dropout", [](Config::Ffn& ffn) {
    ffn.gating_dropout = 0.6;
    ffn.home_ranks = ffn.home_experts = 2;
  });
  return kinds;
}

inline Kind kind_named(const std::string& name) {
  for (const Kind& kind : all_kinds())
    if (kind.name == name) return kind;
  fail("there is no kind {}", name);
}

inline Config config_of(const Kind& kind) {
  Config config = small_config();
  kind.set(config);
  return config;
}

inline Dataset dataset_of(const Config& config) {
  return load_dataset({.kind = config.data.kind,
                       .path = config.data.path,
                       .limit = config.data.limit,
                       .synthetic_samples = config.data.synthetic_samples,
                       .synthetic_size = config.data.synthetic_size,
                       .synthetic_channels = config.data.synthetic_channels,
                       .synthetic_classes = config.data.synthetic_classes,
                       .clusters_setting = config.data.clusters_setting,
                       .seed = config.data.synthetic_seed,
                       .validation = config.data.validation,
                       .validation_seed = config.data.validation_seed});
}

// A trainer with all that it refers to.
class SmallRun {
 public:
  SmallRun(const Config& config, std::unique_ptr<Communicator> world)
      : threads_(static_cast<int>(config.parallel.threads)),
        stream_(config.compute.device == "cuda" ? Device::kCuda : Device::kCpu, kernels::Priority::kUsual),
        context_{config.compute.device == "cuda" ? Device::kCuda : Device::kCpu, &threads_, stream_.get()},
        mesh_(std::move(world), config.parallel.experts),
        dataset_(dataset_of(config)),
        trainer_(config, context_, mesh_, dataset_) {}

  Trainer* operator->() { return &trainer_; }

  std::vector<StepMetrics> train(Index steps) {
    std::vector<StepMetrics> metrics;
    for (Index i = 0; i < steps; ++i) metrics.push_back(trainer_.train_step());
    return metrics;
  }

 private:
  ThreadPool threads_;
  kernels::Stream stream_;  // what the default stream is given cannot be recorded
  Context context_;
  Mesh mesh_;
  Dataset dataset_;
  Trainer trainer_;
};

// On this rank alone.
inline SmallRun run_alone(const Config& config) {
  Config alone = config;
  alone.parallel.experts = alone.parallel.threads = 1;
  return {alone, make_local_communicator()};
}

inline SmallRun run_on_all_ranks(const Config& config) { return {config, world_communicator()}; }

// Expert-parallel sizes that `ranks` ranks allow for this configuration.
inline std::vector<Index> expert_parallel_sizes(const Config& config, Index ranks) {
  std::vector<Index> sizes{1};
  for (Index size = 2; size <= ranks && size <= experts_or_leaves(config); size *= 2) sizes.push_back(size);
  return sizes;
}

}  // namespace switchyard::testing
