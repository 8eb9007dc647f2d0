// The vision transformer (Dosovitskiy et al., 2010.11929) of the seed study: patches, learned positions, a CLS token,
// pre-norm blocks, and a classification head on CLS. Forward and backward over one microbatch at a time.
//
// Where training passes over samples twice (the consistency losses of kernels/api/loss.hpp), layers see a microbatch of
// twice as many samples, all of them once and then all of them again, at twice its place in the batch: so every sample
// of every pass has a place, and draws, of its own. Images are cropped and flipped alike in both passes.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "kernels/api/embedding.hpp"
#include "kernels/api/loss.hpp"
#include "model/attention_block.hpp"
#include "model/ffn.hpp"

namespace switchyard {

struct VitOptions {
  Index image_height = 0, image_width = 0, channels = 0, classes = 0;
  Index layers = 0, width = 0, heads = 0, patch = 0;
  Index head_hidden = 0;  // 0: one linear layer
  Index positions = 0;    // rows of the position table; 0: one per patch
  FfnOptions ffn;         // layer and prefix are filled in here
  // Blocks mixture_every - 1, 2 mixture_every - 1, ... have ffn's mixture, the others are dense.
  Index mixture_every = 1;
  // Pixels: (v / 255 - mean) / deviation, and what training does to them before.
  std::array<float, kernels::kMaxChannels> mean{}, deviation{};
  int crop_padding = 0;
  bool flip = false;
  // Above 0: training passes over every sample twice, with other draws, and this weighs the divergence of its answers.
  double consistency = 0;
  kernels::Consistency consistency_kind = kernels::Consistency::kThor;

  Index training_passes() const { return consistency > 0 ? 2 : 1; }
  Index num_patches() const { return (image_height / patch) * (image_width / patch); }
  Index num_tokens() const { return num_patches() + 1; }
};

class VisionTransformer {
 public:
  // Adds its parameters to the table. Fails where the patch does not divide the image or heads do not divide the width.
  VisionTransformer(const VitOptions& options, ParameterTable& table);

  // Per sample and pass, in device memory (the arena), valid as long as the activations.
  struct Losses {
    Index rows = 0;                  // passes * samples
    const float* loss = nullptr;     // (rows) cross entropy
    const float* correct = nullptr;  // (rows) 1 or 0
    AuxiliaryLosses auxiliary;       // of this microbatch
  };
  Losses forward(const Pass& pass, const Microbatch& microbatch);
  // Of the microbatch that forward saw last.
  void backward(const Pass& pass);

  void prepare_evaluation(const Pass& pass);

  // What a FiniteProbe's place stands for: "embedding", "blocks.3.ffn", "head".
  std::string place_name(int place) const;

  const VitOptions& options() const { return options_; }
  // (passes * samples, classes) of the last forward pass without a backward pass to come, bias left out.
  const float* logits() const { return logits_; }
  const Linear& output_layer() const { return output_; }
  const Ffn& ffn(Index layer) const { return *blocks_[static_cast<std::size_t>(layer)].ffn; }
  // The blocks that have a mixture, in order.
  const std::vector<Index>& mixture_blocks() const { return mixture_blocks_; }
  // After the optimiser's step. chosen: (mixture blocks, experts) tokens of the batch that each was chosen for.
  void after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters);

 private:
  struct Block {
    AttentionBlock attention;
    LayerNorm norm;
    std::unique_ptr<Ffn> ffn;
  };

  float* embed(const Pass& pass, const Microbatch& microbatch);
  // (samples, tokens), for the routers that ask for them; null where there are none.
  std::int32_t* patch_words(const Pass& pass) const;
  Losses classify(const Pass& pass, const Microbatch& microbatch, const float* x);
  // Cross entropy of two passes; returns the consistency loss, weighted.
  double compare_passes(const Pass& pass, const Microbatch& microbatch, float* loss, float* correct);
  void classify_backward(const Pass& pass, float* d_x);
  void embed_backward(const Pass& pass, const float* d_x);

  VitOptions options_;
  Linear embedding_;
  ParameterId positions_ = -1, cls_ = -1;
  std::vector<Block> blocks_;
  std::vector<Index> mixture_blocks_;
  std::unique_ptr<LayerNorm> head_norm_;
  Linear hidden_, output_;  // hidden_ only where options_.head_hidden > 0

  // Of the microbatch at hand:
  Index passes_ = 1, samples_ = 0;  // samples as the layers see them: those of all passes
  float* patches_ = nullptr;        // (samples * patches, patch_size)
  float* head_input_ = nullptr;     // (samples, width)
  float* head_hidden_ = nullptr;    // (samples, head_hidden): without bias
  float* head_activated_ = nullptr;
  float* logits_ = nullptr;         // (samples, classes)
  float* d_logits_ = nullptr;       // (samples, classes)
  std::vector<float> divergences_;  // on their way into the losses
};

}  // namespace switchyard
