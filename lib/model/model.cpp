#include "model/model.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"

namespace switchyard {

std::unique_ptr<Model> make_model(const ModelOptions& options, ParameterTable& table) {
  if (options.kind == "vit") return make_vit(options, table);
  if (options.kind == "mlp") return make_mlp(options, table);
  if (options.kind == "patch_cnn") return make_patch_cnn(options, table);
  fail_usage("model.kind: \"{}\" is not one of vit, mlp, patch_cnn.", options.kind);
}

void Model::add_ffn(FfnOptions ffn, ParameterTable& table) {
  const auto block = static_cast<Index>(ffns_.size());
  ffn.layer = block;
  if ((block + 1) % options_.mixture_every != 0) ffn.kind = "dense";
  if (ffn.is_mixture()) mixture_blocks_.push_back(block);
  if (ffn.is_tree()) tree_blocks_.push_back(block);
  ffns_.push_back(make_ffn(ffn, table));
}

bool Model::host_waits() const {
  return options_.consistency > 0 ||
         std::any_of(ffns_.begin(), ffns_.end(), [](const auto& ffn) { return ffn->host_waits(); });
}

// Where there are several kinds, all mixtures share one draw.
Index Model::num_kinds_of_steps() const {
  if (host_waits()) return 0;
  Index most = 0;
  for (const auto& ffn : ffns_) {
    const Index of_ffn = ffn->num_kinds_of_steps();
    if (of_ffn == 0) return 0;
    most = std::max(most, of_ffn);
  }
  return most;
}

Index Model::kind_of_step(std::uint64_t seed, Index step) const {
  return mixture_blocks_.empty() ? 0 : ffn(mixture_blocks_.front()).kind_of_step(seed, step);
}

void Model::prepare_evaluation(const Pass& pass) {
  for (const auto& ffn : ffns_) ffn->prepare_evaluation(pass);
}

void Model::after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters) {
  const auto experts = static_cast<std::size_t>(options_.ffn.num_experts);
  for (std::size_t i = 0; i < mixture_blocks_.size(); ++i)
    block_ffn(mixture_blocks_[i]).after_step(context, chosen.subspan(i * experts, experts), parameters);
}

void Model::begin(const Pass& pass, const Microbatch& microbatch) {
  passes_ = pass.training ? options_.training_passes() : 1;
  samples_ = passes_ * microbatch.samples;
}

float* Model::image_patches(const Pass& pass, const Microbatch& microbatch, Index patch) const {
  float* patches = pass.arena.take<float>(samples_ * options_.image_size());
  kernels::Patchify patchify;
  patchify.samples = microbatch.samples;
  patchify.height = options_.image_height;
  patchify.width = options_.image_width;
  patchify.channels = options_.channels;
  patchify.patch = patch;
  patchify.images = microbatch.images;
  patchify.mean = options_.mean;
  patchify.deviation = options_.deviation;
  if (pass.training) {
    patchify.crop_padding = options_.crop_padding;
    patchify.flip = options_.flip;
    patchify.flip_vertical = options_.flip_vertical;
    patchify.rotation = options_.rotation;
    patchify.scaling = options_.scaling;
    patchify.key = pass.key(Purpose::kAugment, 0);
    patchify.first_row = static_cast<std::uint32_t>(microbatch.first_sample);
  }
  for (Index i = 0; i < passes_; ++i) {
    patchify.patches = patches + i * microbatch.samples * options_.image_size();
    kernels::patchify(pass.context, patchify);
  }
  return patches;
}

Model::Losses Model::measure(const Pass& pass, const Microbatch& microbatch, float* logits, bool of_softmax) {
  logits_ = logits;
  d_logits_ = pass.gradients ? pass.arena.take<float>(samples_ * options_.classes) : nullptr;
  const float* bias = logits_bias_ >= 0 ? pass.parameters.value(logits_bias_) : nullptr;
  float* loss = pass.arena.take<float>(samples_);
  float* correct = pass.arena.take<float>(samples_);
  if (passes_ > 1)
    return {samples_, loss, correct, {.consistency = compare_passes(pass, microbatch, bias, loss, correct)}};
  kernels::softmax_cross_entropy(pass.context, {.rows = samples_,
                                                .classes = options_.classes,
                                                .logits = logits_,
                                                .bias = bias,
                                                .labels = microbatch.labels,
                                                .scale = static_cast<float>(pass.loss_scale),
                                                .of_softmax = of_softmax,
                                                .loss = loss,
                                                .correct = correct,
                                                .d_logits = d_logits_});
  return {samples_, loss, correct, {}};
}

double Model::compare_passes(const Pass& pass, const Microbatch& microbatch, const float* bias, float* loss,
                             float* correct) {
  float* divergence = pass.arena.take<float>(microbatch.samples);
  kernels::consistency_loss(pass.context, {.samples = microbatch.samples,
                                           .classes = options_.classes,
                                           .kind = options_.consistency_kind,
                                           .logits = logits_,
                                           .bias = bias,
                                           .labels = microbatch.labels,
                                           .scale = static_cast<float>(pass.loss_scale),
                                           .weight = static_cast<float>(options_.consistency),
                                           .loss = loss,
                                           .correct = correct,
                                           .divergence = divergence,
                                           .d_logits = d_logits_});
  divergences_.resize(static_cast<std::size_t>(microbatch.samples));
  kernels::copy_to_host(pass.context, divergences_.data(), divergence, microbatch.samples * Index{sizeof(float)});
  const double sum = std::accumulate(divergences_.begin(), divergences_.end(), 0.0);
  return options_.consistency * sum / static_cast<double>(std::max<Index>(1, microbatch.samples));
}

}  // namespace switchyard
