// The model of Chen et al. (2208.02813) for their data of clusters (data/clusters.cpp): a sample is a row of patches of
// real numbers, and logits = ffn(x), ffn one convolutional network over the patches (patch_network.cpp) or a mixture of
// such experts, in which a sample goes to one expert as a whole and comes back scaled by its gate's value.
//
// As in the paper's code the single network is trained by the cross entropy of its logits, but the mixture ends in a
// softmax, and the loss takes another one of that: with z = gate value * the expert's output
//   loss = -log softmax(softmax(z))[label]
// whose least value, for two classes, is log(1 + 1/e) = 0.3133.
#include "core/error.hpp"
#include "model/model.hpp"

namespace switchyard {

namespace {

class PatchCnn final : public Model {
 public:
  PatchCnn(const ModelOptions& options, ParameterTable& table) : Model(options) {
    check(options);
    FfnOptions ffn = options.ffn;
    ffn.width = options.image_size();
    ffn.patches = options.image_height;
    ffn.out = options.classes;
    ffn.prefix = "blocks.0";
    add_ffn(ffn, table);
  }

  Losses forward(const Pass& pass, const Microbatch& microbatch) override {
    begin(pass, microbatch);
    AuxiliaryLosses auxiliary;
    const Ffn::Input input{
        .samples = samples_, .tokens_per_sample = 1, .first_sample = microbatch.first_sample, .x = microbatch.features};
    float* logits = block_ffn(0).forward(pass, input, &auxiliary);
    Losses losses = measure(pass, microbatch, logits, options_.ffn.is_mixture());
    if (pass.probe) pass.probe->look(pass.context, 0, losses.loss, losses.rows);
    losses.auxiliary = auxiliary;
    return losses;
  }

  void backward(const Pass& pass) override { block_ffn(0).backward(pass, d_logits_, false); }

  std::string place_name(int) const override { return "blocks.0.ffn"; }

 private:
  static void check(const ModelOptions& options) {
    const FfnOptions& ffn = options.ffn;
    if (ffn.is_tree()) fail_usage("ffn.kind = fff: model.kind = patch_cnn takes dense or moe.");
    if (ffn.hidden % options.classes != 0)
      fail_usage("ffn.hidden = {}: model.kind = patch_cnn gives each of {} classes equally many filters: {}.",
                 ffn.hidden, options.classes, "take a multiple");
    if (ffn.shared > 0)
      fail_usage("ffn.shared = {}: model.kind = patch_cnn has no shared experts: set it to 0.", ffn.shared);
    if (ffn.is_mixture() && ffn.router.name == "hash" && ffn.router.hash == "content")
      fail_usage("ffn.hash = content: model.kind = patch_cnn has no images to look at: take position.");
    if (options.consistency > 0)
      fail_usage("ffn.consistency = {}: model.kind = patch_cnn passes over a sample once: set it to 0.",
                 options.consistency);
  }
};

}  // namespace

std::unique_ptr<Model> make_patch_cnn(const ModelOptions& options, ParameterTable& table) {
  return std::make_unique<PatchCnn>(options, table);
}

}  // namespace switchyard
