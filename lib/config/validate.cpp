#include <algorithm>
#include <bit>
#include <cmath>

#include "config/config.hpp"
#include "core/divisors.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

bool is_power_of_two(Index number) { return number > 0 && std::has_single_bit(static_cast<std::uint64_t>(number)); }

bool keeps_tree(const Config& config) { return config.parallel.reduction == "tree"; }

// The allowed world size nearest to `world` below it (step = -1) or above it (step = 1); 0 when there is none.
Index nearest_world(const Config& config, Index world, int step) {
  const Index num_microbatches = config.train.batch / config.train.microbatch;
  for (Index size = std::min(world, num_microbatches + 1) + step; size >= 1 && size <= num_microbatches; size += step) {
    if (num_microbatches % size != 0 || size % config.parallel.experts != 0) continue;
    if (!keeps_tree(config) || is_power_of_two(size)) return size;
  }
  return 0;
}

std::string nearest_worlds(const Config& config, Index world) {
  const Index below = nearest_world(config, world, -1), above = nearest_world(config, world, 1);
  if (below != 0 && above != 0) return fmt::format("use {} or {} ranks", below, above);
  if (below != 0 || above != 0)
    return fmt::format("use {}", below + above == 1 ? "1 rank" : fmt::format("{} ranks", below + above));
  return "no number of ranks works with these keys: lower parallel.experts";
}

// A microbatch that would allow `world` ranks, in words; nothing when there is none.
std::string microbatch_for(const Config& config, Index world) {
  const Index batch = config.train.batch;
  if (batch % world != 0 || world % config.parallel.experts != 0) return "";
  if (keeps_tree(config) && !is_power_of_two(world)) return "";
  // The largest divisor of a rank's share that the user does not exceed now.
  Index microbatch = std::min(config.train.microbatch, batch / world);
  while ((batch / world) % microbatch != 0) --microbatch;
  if (microbatch == config.train.microbatch) return "";
  return fmt::format(
      ", or train.microbatch = {} for {} ranks (another microbatch is another experiment: results differ)", microbatch,
      world);
}

void check_model(const Config& config) {
  const Config::Model& model = config.model;
  if (model.kind == "vit" && model.width % model.heads != 0)
    fail_usage("model.heads = {} does not divide model.width = {}: each head takes an equal share of the width: {}.",
               model.heads, model.width, nearest_divisors("model.heads", model.width, model.heads));
  if (model.kind != "vit" && config.train.input_dropout > 0)
    fail_usage("train.input_dropout = {}: model.kind = {} has no tokens with positions: set it to 0.",
               config.train.input_dropout, model.kind);
}

void check_no_augmentation(const Config::Data& data) {
  const std::pair<const char*, bool> flips[] = {{"data.flip", data.flip}, {"data.flip_vertical", data.flip_vertical}};
  for (const auto& [key, flip] : flips)
    if (flip) fail_usage("{} = true: data.kind = clusters has no images to flip: set it to false.", key);
  const std::pair<const char*, double> moves[] = {{"data.crop_padding", static_cast<double>(data.crop_padding)},
                                                  {"data.rotation", data.rotation},
                                                  {"data.scaling", data.scaling}};
  for (const auto& [key, most] : moves)
    if (most > 0)
      fail_usage("{} = {}: data.kind = clusters has no images to crop, turn or scale: set it to 0.", key, most);
}

// Real numbers have a model of their own.
void check_clusters(const Config& config) {
  const bool has_model = config.model.kind == "patch_cnn", has_data = config.data.kind == "clusters";
  if (has_model && !has_data)
    fail_usage(
        "model.kind = patch_cnn reads patches of real numbers, data.kind = {} has images: set data.kind = clusters.",
        config.data.kind);
  if (has_data && !has_model)
    fail_usage(
        "data.kind = clusters has patches of real numbers, model.kind = {} reads images: set model.kind = patch_cnn.",
        config.model.kind);
  if (has_model && config.train.dropout > 0)
    fail_usage("train.dropout = {}: model.kind = patch_cnn has no dropout: set it to 0.", config.train.dropout);
  if (has_data) check_no_augmentation(config.data);
}

void check_training(const Config& config) {
  const Config::Train& train = config.train;
  if (train.optimizer == "normalized" && config.ffn.kind != "moe")
    fail_usage("train.optimizer = normalized is for experts: set ffn.kind = moe, or another optimizer.");
  if (train.optimizer == "normalized" && !std::isfinite(train.gate_lr / train.lr))
    fail_usage(
        "train.lr = {}: train.optimizer = normalized needs a step above 0, of which train.gate_lr = {} is a multiple: "
        "raise it.",
        train.lr, train.gate_lr);
  if (train.batch % train.microbatch != 0)
    fail_usage("train.microbatch = {} does not divide train.batch = {}: a batch is a whole number of microbatches: {}.",
               train.microbatch, train.batch, nearest_divisors("train.microbatch", train.batch, train.microbatch));
  if (train.schedule_epochs > 0 && config.run.steps == 0 && train.schedule_epochs < config.run.epochs)
    fail_usage(
        "train.schedule_epochs = {} ends before run.epochs = {}: make it at least as long, or 0 for the run's own.",
        train.schedule_epochs, config.run.epochs);
}

// What ends a run early or reduces its rate needs an accuracy to go by, and evaluations on the way.
void check_scores(const Config& config) {
  const Config::Train& train = config.train;
  const bool validation = config.data.validation > 0, training = config.run.measure_training;
  if (train.patience > 0 && !validation && !training)
    fail_usage(
        "train.patience = {}: no accuracy is measured that could stop rising: set data.validation above 0 "
        "(generalisation), run.measure_training = true (memorisation), or train.patience = 0.",
        train.patience);
  if (train.patience > 0 && config.run.steps > 0)
    fail_usage(
        "train.patience = {} counts epochs, run.steps = {} steps: set run.epochs and leave run.steps at 0, or set "
        "train.patience = 0.",
        train.patience, config.run.steps);
  if (train.plateau > 0 && !(train.plateau_of == "training" ? training : validation))
    fail_usage("train.plateau = {}: the {} accuracy that it goes by (train.plateau_of) is not measured: set {}.",
               train.plateau, train.plateau_of,
               train.plateau_of == "training" ? "run.measure_training = true" : "data.validation above 0");
  if ((train.patience > 0 || train.plateau > 0) && config.run.eval_every == 0)
    fail_usage("{} = {}: with run.eval_every = 0 there is no evaluation before the end: set run.eval_every = 1.",
               train.patience > 0 ? "train.patience" : "train.plateau",
               train.patience > 0 ? train.patience : train.plateau);
}

// Whether two passes over a sample can differ.
bool passes_differ(const Config& config) {
  const Config::Ffn& ffn = config.ffn;
  if (config.train.dropout > 0 || config.train.input_dropout > 0) return true;
  if (ffn.kind == "fff") return ffn.region_leak > 0;
  if (ffn.kind != "moe") return false;
  if (ffn.expert_dropout > 0 || ffn.gate_jitter > 0 || ffn.gate_dropout > 0) return true;
  if (ffn.router == "noisy_top_k" || ffn.router == "patch_sum") return true;
  return ffn.router == "random" && ffn.experts > 1;
}

void check_tree(const Config::Ffn& ffn) {
  const Index depth = tree_depth(ffn), width = (Index{1} << std::max<Index>(depth, 0)) * ffn.leaf;
  if (ffn.depth == 0 && (depth < 1 || width != ffn.hidden))
    fail_usage(
        "ffn.hidden = {} is not 2, 4, 8, ... times ffn.leaf = {}: a tree's leaves are so many: change one of them, or "
        "give ffn.depth, the levels of the tree.",
        ffn.hidden, ffn.leaf);
  constexpr Index kWidest = 1048576;
  if (width > kWidest)
    fail_usage("ffn.depth = {} and ffn.leaf = {}: the tree is {} hidden units wide: at most {} work.", ffn.depth,
               ffn.leaf, width, kWidest);
}

// What a user may think that leaves do as experts do.
void check_leaves(const Config& config) {
  const Config::Ffn& ffn = config.ffn;
  const std::pair<const char*, double> of_experts[] = {{"ffn.shared", static_cast<double>(ffn.shared)},
                                                       {"ffn.expert_dropout", ffn.expert_dropout},
                                                       {"ffn.gating_dropout", ffn.gating_dropout},
                                                       {"ffn.capacity_train", ffn.capacity_train},
                                                       {"ffn.capacity_eval", ffn.capacity_eval}};
  for (const auto& [key, value] : of_experts)
    if (value > 0) fail_usage("{} = {} is of experts, and ffn.kind = fff has none: leave it out.", key, value);
  if (ffn.inference == "average")
    fail_usage("ffn.inference = average is of experts' weights, and ffn.kind = fff has none: leave it out.");
  const bool has_dense_blocks = config.model.kind == "vit" && ffn.every > 1;
  if (!has_dense_blocks && (ffn.activation == "cube" || ffn.activation == "identity"))
    fail_usage("ffn.activation = {}: hidden units of ffn.kind = fff are relu: leave it out.", ffn.activation);
}

void check_ffn(const Config& config) {
  const Config::Ffn& ffn = config.ffn;
  if (ffn.consistency > 0 && !passes_differ(config))
    fail_usage(
        "ffn.consistency = {}: with train.dropout = 0 and nothing else that is drawn anew in each pass, both would "
        "give the same answer: set train.dropout above 0, ffn.router = random or noisy_top_k, or ffn.consistency = 0.",
        ffn.consistency);
  if (ffn.kind == "fff") {
    check_tree(ffn);
    check_leaves(config);
  }
  if (ffn.kind == "dense") return;
  if (config.model.kind == "vit" && ffn.every > config.model.layers)
    fail_usage("ffn.every = {}: none of the model.layers = {} blocks would have a mixture: lower it.", ffn.every,
               config.model.layers);
}

void check_parallel(const Config& config) {
  const Index expert_ranks = config.parallel.experts;
  if (config.ffn.kind == "dense" && expert_ranks != 1)
    fail_usage("parallel.experts = {}, but ffn.kind = dense has no experts to share out: set parallel.experts = 1.",
               expert_ranks);
  const Index parts = experts_or_leaves(config);
  if (parts % expert_ranks != 0)
    fail_usage(
        "parallel.experts = {} does not divide {}: each rank of a group holds equally many: {}.", expert_ranks,
        config.ffn.kind == "moe" ? fmt::format("ffn.experts = {}", parts) : fmt::format("the tree's {} leaves", parts),
        nearest_divisors("parallel.experts", parts, expert_ranks,
                         [&](Index size) { return !keeps_tree(config) || is_power_of_two(size); }));
  const Index num_microbatches = config.train.batch / config.train.microbatch;
  if (config.ffn.gating_dropout > 0 && num_microbatches % config.ffn.home_ranks != 0)
    fail_usage(
        "ffn.home_ranks = {} does not divide the {} microbatches of a batch (train.batch / train.microbatch): {}.",
        config.ffn.home_ranks, num_microbatches,
        nearest_divisors("ffn.home_ranks", num_microbatches, config.ffn.home_ranks));
  if (config.parallel.exchange == "nccl" && config.compute.device == "cpu")
    fail_usage("parallel.exchange = nccl carries arrays of GPUs, and compute.device is cpu: leave it out.");
  if (config.parallel.overlap == "on" && !keeps_tree(config))
    fail_usage(
        "parallel.overlap = on cuts the sums over ranks, which parallel.reduction = library may then add up in another "
        "order: set one of them otherwise.");
  if (keeps_tree(config) && !is_power_of_two(expert_ranks))
    fail_usage("parallel.experts = {} is not a power of two: it divides the number of ranks, which is one.",
               expert_ranks);
}

void check_compute(const Config& config) {
  if (!config.compute.tf32) return;
  if (config.compute.device == "cpu")
    fail_usage("compute.tf32 = true is what GPUs do, and compute.device is cpu: set it to false.");
  if (config.compute.dtype != "fp32")
    fail_usage("compute.tf32 = true is for products in fp32, and compute.dtype is {}: set one of them only.",
               config.compute.dtype);
}

void check_names(const Config& config) {
  const std::string& name = config.run.name;
  if (name == "." || name == ".." || name.find('/') != std::string::npos)
    fail_usage("run.name = {}: it names a folder inside run.out: use a name without /.", name);
}

}  // namespace

void validate(const Config& config) {
  check_names(config);
  check_model(config);
  check_clusters(config);
  check_training(config);
  check_scores(config);
  check_ffn(config);
  check_parallel(config);
  check_compute(config);
}

void check_ranks(const Config& config, int world) {
  const Index batch = config.train.batch, microbatch = config.train.microbatch;
  const Index num_microbatches = batch / microbatch, expert_ranks = config.parallel.experts;
  const bool fits = world >= 1 && num_microbatches % world == 0 && (!keeps_tree(config) || is_power_of_two(world));
  if (!fits)
    fail_usage(
        "{} ranks cannot share the M = {} microbatches of a batch (train.batch {} / train.microbatch {}): the number "
        "of ranks must {}divide M{}: {}{}.",
        world, num_microbatches, batch, microbatch, keeps_tree(config) ? "be a power of two and " : "",
        expert_ranks > 1 ? fmt::format(" and be a multiple of parallel.experts = {}", expert_ranks) : "",
        nearest_worlds(config, world), microbatch_for(config, world));
  if (world % expert_ranks != 0)
    fail_usage(
        "parallel.experts = {} does not divide the number of ranks, {}: {}, or set parallel.experts to a divisor of "
        "{}.",
        expert_ranks, world, nearest_worlds(config, world), world);
}

}  // namespace switchyard
