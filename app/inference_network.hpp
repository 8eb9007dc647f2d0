// A network as `switchyard bench inference` evaluates it: one feed-forward layer, or a whole model around such layers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "model/model.hpp"

namespace switchyard {

enum class Part { kLayer, kModel };

// What all networks of a benchmark are fed with.
struct InferenceInputs {
  InferenceInputs(const Context& context, const ModelOptions& options, Index batch);

  kernels::Array<float> x, residual;    // (batch, width) and, of transformers, (batch, out), uniform over [-1, 1)
  kernels::Array<std::uint8_t> images;  // (batch, height, width, channels)
  kernels::Array<std::int32_t> labels;  // (batch)
};

class InferenceNetwork {
 public:
  // The context, the options of one network (its ffn.kind among them) and the inputs must outlive it. microbatch: of a
  // model.
  InferenceNetwork(const Context& context, Part part, const ModelOptions& options, const InferenceInputs& inputs,
                   Index microbatch, kernels::Precision precision);

  void run(kernels::Arena& arena, Index batch);
  // Parameters, and what has been packed of them so far.
  Index weight_bytes() const;

 private:
  void run_layer(const Pass& pass, Index batch);

  const Context& context_;
  const InferenceInputs& inputs_;
  Index microbatch_;
  kernels::Precision precision_;
  std::unique_ptr<Communicator> alone_;
  ParameterTable table_;
  std::unique_ptr<Ffn> layer_;  // one of the two
  std::unique_ptr<Model> model_;
  std::unique_ptr<ParameterStore> parameters_;
  std::unique_ptr<PackedWeights> packed_weights_;
};

// Of a layer of the model by itself.
FfnOptions layer_options(const ModelOptions& options);

}  // namespace switchyard
