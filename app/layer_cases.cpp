// Kernels of the layers between the products, of the embedding and of the loss.
#include "app/case_list.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/embedding.hpp"
#include "kernels/api/layernorm.hpp"
#include "kernels/api/loss.hpp"

namespace switchyard {

namespace {

// Of a transformer's blocks.
void add_layers(CaseList& cases) {
  const Index rows = cases.tokens, width = cases.width;
  cases.add(kernels::layernorm, "layernorm", by({rows, width}), [=](Operands& o) -> kernels::LayerNorm {
    return {.rows = rows,
            .cols = width,
            .x = o.read(rows * width),
            .x_stride = width,
            .gamma = o.read(width),
            .beta = o.read(width),
            .y = o.write_operand(rows, width),
            .mean = o.write(rows),
            .rstd = o.write(rows)};
  });
  cases.add(kernels::layernorm_backward, "layernorm_backward", by({rows, width}),
            [=](Operands& o) -> kernels::LayerNormBackward {
              return {.rows = rows,
                      .cols = width,
                      .x = o.read(rows * width),
                      .x_stride = width,
                      .gamma = o.read(width),
                      .mean = o.read(rows),
                      .rstd = o.read(rows),
                      .d_y = o.read_operand(rows, width),
                      .d_x = o.update(rows * width),
                      .d_gamma = o.write(width),
                      .d_beta = o.write(width)};
            });
  cases.add_with_dropout(kernels::bias_dropout_residual, "bias_dropout_residual", by({rows, width}),
                         [=](Operands& o, const kernels::Dropout& dropout) -> kernels::BiasDropoutResidual {
                           // In fp32 over what it read.
                           float* y = o.rounds() ? o.write(rows * width) : o.update(rows * width);
                           return {.rows = rows,
                                   .cols = width,
                                   .x = o.rounds() ? o.read_operand(rows, width) : y,
                                   .bias = o.read(width),
                                   .residual = o.read(rows * width),
                                   .y = y,
                                   .dropout = dropout};
                         });
  cases.add_with_dropout(kernels::dropout_backward, "dropout_backward", by({rows, width}),
                         [=](Operands& o, const kernels::Dropout& dropout) -> kernels::DropoutBackward {
                           return {.rows = rows,
                                   .cols = width,
                                   .d_y = o.read(rows * width),
                                   .d_x = o.write_operand(rows, width),
                                   .d_bias = o.write(width),
                                   .dropout = dropout};
                         });
}

// Of a feed-forward network.
void add_hidden_units(CaseList& cases) {
  const Index segment_rows = cases.segment_rows, hidden = cases.hidden, out = cases.out;
  const FfnOptions& ffn = cases.model.ffn;
  const kernels::Activation activation = ffn.is_tree() ? kernels::Activation::kRelu : ffn.activation;
  cases.add_with_dropout(kernels::bias_activation_dropout, "bias_activation_dropout", by({segment_rows, hidden}),
                         [=](Operands& o, const kernels::Dropout& dropout) -> kernels::BiasActivationDropout {
                           return {.rows = segment_rows,
                                   .cols = hidden,
                                   .activation = activation,
                                   .x = o.read_operand(segment_rows, hidden),
                                   .bias = o.read(hidden),
                                   .y = o.write_operand(segment_rows, hidden),
                                   .dropout = dropout};
                         });
  cases.add_with_dropout(kernels::bias_activation_dropout_backward, "bias_activation_dropout_backward",
                         by({segment_rows, hidden}),
                         [=](Operands& o, const kernels::Dropout& dropout) -> kernels::BiasActivationDropoutBackward {
                           const kernels::NewOperand d_y = o.update_operand(segment_rows, hidden);
                           return {.rows = segment_rows,
                                   .cols = hidden,
                                   .activation = activation,
                                   .x = o.read_operand(segment_rows, hidden),
                                   .bias = o.read(hidden),
                                   .d_y = d_y,
                                   .d_x = d_y,
                                   .d_bias = o.write(hidden),
                                   .dropout = dropout};
                         });
  if (ffn.is_tree()) return;
  // Of an expert's second layer.
  cases.add(kernels::column_sum, "column_sum", by({segment_rows, out}), [=](Operands& o) -> kernels::ColumnSum {
    return {.rows = segment_rows, .cols = out, .x = o.read_operand(segment_rows, out), .sums = o.write(out)};
  });
}

void add_images(CaseList& cases) {
  const Index samples = cases.samples;
  const Index pixels = samples * cases.model.image_height * cases.model.image_width * cases.model.channels;
  cases.add(kernels::patchify, "patchify",
            by({samples, cases.model.image_height, cases.model.image_width, cases.model.channels}),
            [=, model = cases.model, seed = cases.config.run.seed](Operands& o) -> kernels::Patchify {
              return {.samples = samples,
                      .height = model.image_height,
                      .width = model.image_width,
                      .channels = model.channels,
                      .patch = model.is_vit() ? model.patch : 1,
                      .images = o.read<std::uint8_t>(pixels),
                      .patches = o.write(pixels),
                      .mean = model.mean,
                      .deviation = model.deviation,
                      .crop_padding = model.crop_padding,
                      .flip = model.flip,
                      .flip_vertical = model.flip_vertical,
                      .rotation = model.rotation,
                      .scaling = model.scaling,
                      .key = {seed, Purpose::kAugment, 0, 0}};
            });
}

void add_embedding(CaseList& cases) {
  const Index samples = cases.samples, patches = cases.model.num_patches(), width = cases.width;
  const Index rows = samples * patches;
  const std::string embedding_shape = by({samples, patches, width});
  cases.add(kernels::embed_tokens, "embed_tokens", embedding_shape, [=](Operands& o) -> kernels::EmbedTokens {
    return {.samples = samples,
            .patches = patches,
            .width = width,
            .projected = o.read(rows * width),
            .bias = o.read(width),
            .positions = o.read(patches * width),
            .cls = o.read(width),
            .y = o.write((rows + samples) * width)};
  });
  cases.add(kernels::embed_tokens_backward, "embed_tokens_backward", embedding_shape,
            [=](Operands& o) -> kernels::EmbedTokensBackward {
              return {.samples = samples,
                      .patches = patches,
                      .width = width,
                      .d_y = o.read((rows + samples) * width),
                      .d_projected = o.write(rows * width),
                      .d_bias = o.write(width),
                      .d_positions = o.write(patches * width),
                      .d_cls = o.write(width)};
            });
}

void add_loss(CaseList& cases) {
  const Index samples = cases.samples, classes = cases.model.classes;
  cases.add(kernels::softmax_cross_entropy, "softmax_cross_entropy", by({samples, classes}),
            [=](Operands& o) -> kernels::SoftmaxCrossEntropy {
              return {.rows = samples,
                      .classes = classes,
                      .logits = o.read(samples * classes),
                      .bias = o.read(classes),
                      .labels = o.read(numbers(samples, [=](Index i) { return i % classes; })),
                      .loss = o.write(samples),
                      .correct = o.write(samples),
                      .d_logits = o.write(samples * classes)};
            });
  if (cases.model.kind == "patch_cnn") return;  // which never passes twice
  const Index compared = cases.config.train.microbatch;
  cases.add(kernels::consistency_loss, "consistency_loss", by({2, compared, classes}),
            [=](Operands& o) -> kernels::ConsistencyLoss {
              return {.samples = compared,
                      .classes = classes,
                      .logits = o.read(2 * compared * classes),
                      .bias = o.read(classes),
                      .labels = o.read(numbers(compared, [=](Index i) { return i % classes; })),
                      .loss = o.write(2 * compared),
                      .correct = o.write(2 * compared),
                      .divergence = o.write(compared),
                      .d_logits = o.write(2 * compared * classes)};
            });
}

}  // namespace

void add_layer_cases(CaseList& cases) {
  if (cases.model.is_vit()) add_layers(cases);
  if (cases.model.kind != "patch_cnn") {
    add_hidden_units(cases);
    add_images(cases);
  }
  if (cases.model.is_vit()) add_embedding(cases);
  add_loss(cases);
}

}  // namespace switchyard
