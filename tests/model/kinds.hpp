// Small models of every kind for tests of passes: the dense one, every row of the table of routers, so that one added
// later is there too, and what routers can be told.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "model/small_model.hpp"
#include "routing/router.hpp"

namespace switchyard::testing {

inline ModelOptions small_options() {
  ModelOptions options;
  options.image_height = 8;
  options.image_width = 12;
  options.channels = 3;
  options.classes = 5;
  options.layers = 2;
  options.width = 12;
  options.heads = 3;
  options.patch = 4;
  options.head_hidden = 14;
  options.positions = 8;
  options.ffn.kind = "dense";
  options.ffn.hidden = 20;
  options.mean.fill(0.5f);
  options.deviation.fill(0.25f);
  options.crop_padding = 1;
  options.flip = true;
  return options;
}

inline Batch random_batch(const ModelOptions& options, Index samples, Index microbatch) {
  Batch batch{.samples = samples, .microbatch = microbatch, .images = {}, .labels = {}};
  const Index bytes = batch.samples * options.image_height * options.image_width * options.channels;
  for (float value : random_floats(bytes, 21)) batch.images.push_back(static_cast<std::uint8_t>(128 + 127 * value));
  for (Index sample = 0; sample < batch.samples; ++sample)
    batch.labels.push_back(static_cast<std::int32_t>(sample % options.classes));
  if (options.kind == "patch_cnn")
    for (float value : random_floats(bytes, 22)) batch.features.push_back(3 * value);
  return batch;
}

struct Kind {
  std::string name;
  ModelOptions options;
  bool shows_losses = false;  // its auxiliary losses weigh enough to be seen beside the cross entropy
};
inline void PrintTo(const Kind& kind, std::ostream* stream) { *stream << kind.name; }

// The dense model, every row of the table of routers, and what routers can be told.
inline std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds{{"dense", small_options()}, {"dense_twice", small_options(), true}};
  kinds.back().options.consistency = 2;
  kinds.push_back({"dense_turned_input_dropout", small_options()});
  ModelOptions& turned = kinds.back().options;
  turned.flip_vertical = true;
  turned.rotation = 30;
  turned.scaling = 0.2;
  turned.input_dropout = 0.25;
  const auto add = [&](const std::string& router, const std::string& variant,
                       const std::function<void(FfnOptions&, RouterOptions&)>& change) {
    ModelOptions options = small_options();
    options.ffn.kind = "moe";
    options.ffn.num_experts = 4;
    options.ffn.router.name = router;
    options.ffn.router.granularity = "token";
    change(options.ffn, options.ffn.router);
    kinds.push_back({router + variant, options, !variant.empty()});
  };
  for (const RouterRow& row : router_table()) add(row.name, "", [](FfnOptions&, RouterOptions&) {});
  add("switch", "_losses", [](FfnOptions&, RouterOptions& router) {
    router.balance_loss = router.importance_loss = 0.5;
    router.z_loss = 0.05;
  });
  add("switch", "_renormalised_jitter_dropout", [](FfnOptions&, RouterOptions& router) {
    router.renormalise = true;
    router.balance_loss = 0.5;
    router.gate_jitter = 0.2;
    router.gate_dropout = 0.2;
  });
  add("switch", "_capacity_shared", [](FfnOptions& ffn, RouterOptions& router) {
    router.capacity_train = 1;
    router.importance_loss = 0.5;
    ffn.shared = 1;
    ffn.expert_dropout = 0.4;
  });
  add("switch", "_at_home", [](FfnOptions&, RouterOptions& router) {
    router.gating_dropout = 1;
    router.home_ranks = router.home_experts = 2;
    router.balance_loss = 0.5;
  });
  add("top_k", "_renormalised_losses", [](FfnOptions&, RouterOptions& router) {
    router.renormalise = true;
    router.balance_loss = router.importance_loss = 0.5;
    router.z_loss = 0.05;
  });
  for (const bool renormalise : {false, true})
    add("top_k", renormalise ? "_of_3_sigmoid_renormalised" : "_of_3_sigmoid", [=](FfnOptions&, RouterOptions& router) {
      router.top_k = 3;
      router.scores = "sigmoid";
      router.renormalise = renormalise;
      router.balance_loss = router.importance_loss = 0.5;
    });
  add("top_k", "_jitter_dropout", [](FfnOptions&, RouterOptions& router) {
    router.balance_loss = 0.5;
    router.gate_jitter = 0.2;
    router.gate_dropout = 0.2;
  });
  for (const Index top_k : {1, 2})
    add("noisy_top_k", "_losses_" + std::to_string(top_k), [=](FfnOptions&, RouterOptions& router) {
      router.top_k = top_k;
      router.balance_loss = router.load_loss = 0.5;
      router.importance_loss = top_k == 1 ? 0 : 0.5;  // the only weight is 1, renormalised
      router.z_loss = 0.05;
    });
  add("noisy_top_k", "_jitter_dropout_capacity", [](FfnOptions&, RouterOptions& router) {
    router.importance_loss = router.load_loss = 0.5;
    router.gate_jitter = 0.2;
    router.gate_dropout = 0.2;
    router.capacity_train = 1;
  });
  add("noisy_top_k", "_tilted", [](FfnOptions&, RouterOptions& router) {
    router.gate_tilt = 0.5;
    router.importance_loss = router.load_loss = 0.5;
  });
  add("noisy_top_k", "_without_floor", [](FfnOptions&, RouterOptions& router) {
    router.importance_loss = router.load_loss = 0.5;
    router.noise_floor = 0;
  });
  for (const std::string order : {"choice", "token"})
    add("top_k", "_capacity_by_" + order, [=](FfnOptions&, RouterOptions& router) {
      router.capacity_train = 0.8;
      router.capacity_order = order;
      router.balance_loss = 0.5;
    });
  add("loss_free", "_sigmoid", [](FfnOptions&, RouterOptions& router) {
    router.scores = "sigmoid";
    router.balance_loss = router.importance_loss = 0.5;
  });
  add("expert_choice", "_z_loss_capacity", [](FfnOptions&, RouterOptions& router) {
    router.z_loss = 0.05;
    router.capacity_train = 1.3;
    router.gate_jitter = 0.2;
  });
  add("random", "_twice", [](FfnOptions&, RouterOptions&) {});
  kinds.back().options.consistency = 2;
  add("random", "_capacity", [](FfnOptions&, RouterOptions& router) { router.capacity_train = 0.5; });
  add("random", "_shared", [](FfnOptions& ffn, RouterOptions&) { ffn.shared = 1; });
  for (const bool mlp : {false, true}) {
    for (const std::string kind : {"dense", "moe", "fff"}) {
      if (kind != "fff" && !mlp) continue;
      ModelOptions options = small_options();
      options.kind = mlp ? "mlp" : "vit";
      if (mlp) options.layers = 1;
      options.ffn.kind = kind;
      options.ffn.activation = kernels::Activation::kRelu;
      options.ffn.num_experts = 4;
      options.ffn.router.name = "top_k";
      if (kind == "fff") options.ffn.tree = {.depth = 2, .leaf = 3, .hardening = 0.5, .region_leak = 0.3};
      kinds.push_back({(mlp ? "mlp_" : "vit_") + kind, options, kind == "fff"});
    }
  }
  for (const std::string router : {"", "patch_sum", "switch"}) {
    ModelOptions options = small_options();
    options.kind = "patch_cnn";
    options.image_height = 3, options.image_width = 7, options.channels = 1;
    options.ffn.kind = router.empty() ? "dense" : "moe";
    options.ffn.activation = kernels::Activation::kCube;
    options.ffn.num_experts = router.empty() ? 0 : 4;
    options.ffn.router.name = router.empty() ? "switch" : router;
    kinds.push_back({"patch_cnn_" + (router.empty() ? "dense" : router), options});
  }
  add("hash", "_of_content", [](FfnOptions&, RouterOptions& router) { router.hash = "content"; });
  return kinds;
}

inline ModelOptions kind_named(const std::string& name) {
  for (const Kind& kind : all_kinds())
    if (kind.name == name) return kind.options;
  fail("there is no kind {}", name);
}

}  // namespace switchyard::testing
