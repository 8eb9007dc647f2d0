// Flattened images -> one feed-forward network -> classes, as in the tables of Belcak & Wattenhofer (2308.14711):
//   logits = ffn(x), x (height * width * channels) normalised pixels.
// No residual, and no dropout but that of the hidden units.
#include "core/error.hpp"
#include "model/model.hpp"

namespace switchyard {

namespace {

class Mlp final : public Model {
 public:
  Mlp(const ModelOptions& options, ParameterTable& table) : Model(options) {
    const RouterOptions& router = options.ffn.router;
    if (options.ffn.is_mixture() && router.name == "hash" && router.hash == "content")
      fail_usage("ffn.hash = content: model.kind = mlp has no patches to look at: use model.kind = vit.");
    FfnOptions ffn = options.ffn;
    ffn.width = options.image_size();
    ffn.out = options.classes;
    ffn.prefix = "blocks.0";
    add_ffn(ffn, table);
  }

  Losses forward(const Pass& pass, const Microbatch& microbatch) override {
    begin(pass, microbatch);
    // Patches of one pixel: pixels in their order, channels together.
    const float* x = image_patches(pass, microbatch, 1);
    AuxiliaryLosses auxiliary;
    Ffn::Input input{.samples = samples_,
                     .tokens_per_sample = 1,
                     .first_sample = passes_ * microbatch.first_sample,
                     .x = x,
                     .passes = passes_};
    float* logits = block_ffn(0).forward(pass, input, &auxiliary);
    Losses losses = measure(pass, microbatch, logits);
    if (pass.probe) pass.probe->look(pass.context, 0, losses.loss, losses.rows);
    auxiliary.consistency = losses.auxiliary.consistency;
    losses.auxiliary = auxiliary;
    return losses;
  }

  void backward(const Pass& pass) override { block_ffn(0).backward(pass, d_logits_, false); }

  std::string place_name(int) const override { return "blocks.0.ffn"; }
};

}  // namespace

std::unique_ptr<Model> make_mlp(const ModelOptions& options, ParameterTable& table) {
  return std::make_unique<Mlp>(options, table);
}

}  // namespace switchyard
