// A classifier of images that is trained one microbatch at a time. One file per kind; what they share stands here: the
// blocks with a feed-forward network, and the loss.
//
// Where training passes over samples twice (the consistency losses of kernels/api/loss.hpp), layers see a microbatch of
// twice as many samples, all of them once and then all of them again, at twice its place in the batch: so every sample
// of every pass has a place, and draws, of its own. Images are augmented alike in both passes.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "kernels/api/embedding.hpp"
#include "kernels/api/loss.hpp"
#include "model/ffn.hpp"

namespace switchyard {

struct ModelOptions {
  std::string kind = "vit";  // vit | mlp | patch_cnn
  Index image_height = 0, image_width = 0, channels = 0, classes = 0;
  FfnOptions ffn;  // width, out, layer and prefix are filled in by the model
  // Pixels: (v / 255 - mean) / deviation, and what training does to them before.
  std::array<float, kernels::kMaxChannels> mean{}, deviation{};
  int crop_padding = 0;
  bool flip = false, flip_vertical = false;
  double rotation = 0, scaling = 0;
  // Above 0: training passes over every sample twice, with other draws, and this weighs the divergence of its answers.
  double consistency = 0;
  kernels::Consistency consistency_kind = kernels::Consistency::kThor;
  // vit only:
  Index layers = 1, width = 0, heads = 0, patch = 0;
  Index head_hidden = 0;  // 0: one linear layer
  Index positions = 0;    // rows of the position table; 0: one per patch
  double input_dropout = 0;
  // Blocks mixture_every - 1, 2 mixture_every - 1, ... have ffn's mixture, the others are dense.
  Index mixture_every = 1;

  bool is_vit() const { return kind == "vit"; }
  Index training_passes() const { return consistency > 0 ? 2 : 1; }
  Index image_size() const { return image_height * image_width * channels; }
  Index num_patches() const { return (image_height / patch) * (image_width / patch); }
  // Rows of a sample that feed-forward networks see.
  Index num_tokens() const { return is_vit() ? num_patches() + 1 : 1; }
};

class Model {
 public:
  virtual ~Model() = default;
  Model(const Model&) = delete;

  // Per sample and pass, in device memory (the arena), valid as long as the activations.
  struct Losses {
    Index rows = 0;                  // passes * samples
    const float* loss = nullptr;     // (rows) cross entropy
    const float* correct = nullptr;  // (rows) 1 or 0
    AuxiliaryLosses auxiliary;       // of this microbatch
  };
  virtual Losses forward(const Pass& pass, const Microbatch& microbatch) = 0;
  // Of the microbatch that forward saw last.
  virtual void backward(const Pass& pass) = 0;
  // What a FiniteProbe's place stands for: "embedding", "blocks.3.ffn", "head".
  virtual std::string place_name(int place) const = 0;

  // As Router, where all experts are this rank's.
  bool host_waits() const;
  Index num_kinds_of_steps() const;
  Index kind_of_step(std::uint64_t seed, Index step) const;

  void prepare_evaluation(const Pass& pass);
  // After the optimiser's step. chosen: (mixture blocks, experts) tokens of the batch that each was chosen for.
  void after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters);

  const ModelOptions& options() const { return options_; }
  const Ffn& ffn(Index block) const { return *ffns_[static_cast<std::size_t>(block)]; }
  // The blocks that have a mixture, in order.
  const std::vector<Index>& mixture_blocks() const { return mixture_blocks_; }
  // The blocks that have a tree, in order.
  const std::vector<Index>& tree_blocks() const { return tree_blocks_; }
  // (passes * samples, classes) of the last forward pass without a backward pass to come, before the bias.
  const float* logits() const { return logits_; }
  ParameterId logits_bias() const { return logits_bias_; }  // -1: they have none to be added

 protected:
  explicit Model(const ModelOptions& options) : options_(options) {}

  Ffn& block_ffn(Index block) { return *ffns_[static_cast<std::size_t>(block)]; }
  // The feed-forward network of the next block: options of ffn with width, out and prefix.
  void add_ffn(FfnOptions ffn, ParameterTable& table);

  // To be called first in a forward pass, with what follows in samples_.
  void begin(const Pass& pass, const Microbatch& microbatch);
  // As Patchify; repeated for every pass: (samples_ * patches, channels * patch * patch), from the arena.
  float* image_patches(const Pass& pass, const Microbatch& microbatch, Index patch) const;
  // logits: (samples_, classes). With a backward pass to come d_logits_ holds the loss's gradient afterwards.
  // of_softmax: as in SoftmaxCrossEntropy, for one pass.
  Losses measure(const Pass& pass, const Microbatch& microbatch, float* logits, bool of_softmax = false);

  ModelOptions options_;
  ParameterId logits_bias_ = -1;
  // Of the microbatch at hand:
  Index passes_ = 1, samples_ = 0;  // samples as the layers see them: those of all passes
  float* d_logits_ = nullptr;       // (samples_, classes)

 private:
  // Cross entropy of two passes; returns the consistency loss, weighted.
  double compare_passes(const Pass& pass, const Microbatch& microbatch, const float* bias, float* loss, float* correct);

  std::vector<std::unique_ptr<Ffn>> ffns_;
  std::vector<Index> mixture_blocks_, tree_blocks_;
  float* logits_ = nullptr;
  std::vector<float> divergences_;  // on their way into the losses
};

// Adds the model's parameters to the table. Fails where the options do not fit each other.
std::unique_ptr<Model> make_model(const ModelOptions& options, ParameterTable& table);
std::unique_ptr<Model> make_vit(const ModelOptions& options, ParameterTable& table);
std::unique_ptr<Model> make_mlp(const ModelOptions& options, ParameterTable& table);
std::unique_ptr<Model> make_patch_cnn(const ModelOptions& options, ParameterTable& table);

}  // namespace switchyard
