// What every layer is given on a pass over one microbatch.
#pragma once

#include <cstdint>

#include "comm/parameter_store.hpp"
#include "core/clock.hpp"
#include "kernels/api/arena.hpp"
#include "kernels/api/dropout.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/operand.hpp"
#include "kernels/api/reduce.hpp"
#include "model/packed_weights.hpp"
#include "routing/exchange.hpp"
#include "routing/recording.hpp"

namespace switchyard {

// Finds the first place of a forward pass whose output held a NaN or an infinity. Only a run that has already failed
// pays for one.
struct FiniteProbe {
  static constexpr int kNone = 1 << 30;
  int first_bad = kNone;  // Model::place_name() says what it is
  void look(const Context& context, int place, const float* x, Index size) {
    if (place < first_bad && kernels::count_not_finite(context, x, size) > 0) first_bad = place;
  }
};

struct Pass {
  const Context& context;
  kernels::Arena& arena;  // activations: valid until the microbatch's backward pass is done
  const ParameterStore& parameters;
  Communicator& expert_group;
  PhaseSeconds& seconds;
  ExchangeTurns exchange_turns{};
  GradientSums* gradients = nullptr;        // null: no backward pass follows
  PackedWeights* packed_weights = nullptr;  // null: every product packs its weights for itself
  FiniteProbe* probe = nullptr;
  Recording* recording = nullptr;  // null: what the pass launches is not recorded
  std::uint64_t seed = 0;
  Index step = 0;
  bool training = false;
  float dropout = 0;                                         // probability; 0 in evaluation
  kernels::Precision precision = kernels::Precision::kFp32;  // of the products of linear layers and attention
  double loss_scale = 1;                                     // of one sample's loss in the batch's: 1 / batch
  double auxiliary_scale = 1;  // of one microbatch's auxiliary losses in the batch's: 1 / microbatches
  Index num_microbatches = 1, microbatches_per_rank = 1;  // of a training batch

  kernels::LinearProducts linear(Index rows, Index in, Index out) const { return {rows, in, out, precision}; }
  // The product with its weight packed, where packed weights are kept.
  kernels::Gemm by_weight(kernels::Gemm product) const {
    by_weights({&product, 1});
    return product;
  }
  void by_weights(std::span<kernels::Gemm> products) const {
    if (packed_weights) packed_weights->pack(products);
  }

  // From the arena, an array (rows, cols) of activations or their gradients, that a product or another kernel writes
  // and `readers` read. kProducts are also the kernels that take an Operand: in bf16 alone where the device and the
  // precision allow it, else in fp32 alone.
  kernels::NewOperand operand(Index rows, Index cols, kernels::Readers readers = kernels::Readers::kProducts) const {
    const bool rounded = is_rounded_for(readers);
    const bool values = !rounded || readers != kernels::Readers::kProducts;
    return {values ? arena.take<float>(rows * cols) : nullptr,
            rounded ? arena.take<kernels::Bf16>(rows * kernels::rounded_cols(cols)) : nullptr};
  }
  // The same in the place of `values` where it is fp32, for a kernel that may write over what it reads.
  kernels::NewOperand operand_over(float* values, Index rows, Index cols) const {
    return is_rounded_for(kernels::Readers::kProducts) ? operand(rows, cols) : kernels::NewOperand{values};
  }

  // For kernels to draw with in this step.
  RandomKey key(Purpose purpose, Index layer) const { return key_of_step(seed, purpose, layer, step, recording); }

  kernels::Dropout dropout_for(Purpose purpose, Index layer, Index first_row) const {
    kernels::Dropout dropout_of_layer;
    dropout_of_layer.probability = dropout;
    dropout_of_layer.key = key(purpose, layer);
    dropout_of_layer.first_row = static_cast<std::uint32_t>(first_row);
    return dropout_of_layer;
  }

 private:
  bool is_rounded_for(kernels::Readers readers) const {
    return readers != kernels::Readers::kOthers && kernels::reads_rounded(context.device, precision);
  }
};

struct Microbatch {
  Index samples = 0;                     // may be 0: a rank without data still takes part in the exchange
  Index first_sample = 0;                // place of its first sample in the batch, or in the test set
  const std::uint8_t* images = nullptr;  // (samples, height, width, channels) device; null where features are given
  const std::int32_t* labels = nullptr;  // (samples) device
  const float* features = nullptr;       // as images, of data that are real numbers
  bool operator==(const Microbatch&) const = default;
};

}  // namespace switchyard
