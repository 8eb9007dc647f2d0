// A model with its parameters on this rank: all that evaluating, loading and hashing them takes. A trainer adds
// gradients and an optimiser. evaluation.cpp evaluates, dispatch_entropy.cpp tells what experts are sent, files.cpp
// holds checkpoints and digest.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "data/dataset.hpp"
#include "io/checkpoint.hpp"
#include "kernels/api/arena.hpp"
#include "model/model.hpp"
#include "network/measures.hpp"

namespace switchyard {

class Network {
 public:
  // On every rank, each for itself: it waits for no other. Parameters are drawn from run.seed.
  Network(const Config& config, const Context& context, Mesh& mesh, const ImageShape& image);

  const ParameterTable& table() const { return table_; }
  const Model& model() const { return *model_; }
  Model& model() { return *model_; }
  const ParameterStore& parameters() const { return *parameters_; }
  ParameterStore& parameters() { return *parameters_; }
  PackedWeights& packed_weights() { return *packed_weights_; }
  kernels::Arena& arena() { return arena_; }  // for the model's activations
  // Parameters that a token meets.
  Index num_active() const { return table_.num_active(model().options().ffn.parts_per_token()); }

  // Called while a split is evaluated, by every rank at the same places, after at most as many microbatches as a step
  // has; whatever it throws, on every rank, ends the evaluation.
  using Interrupt = std::function<void()>;
  // Every sample of the split once, without augmentation, as after `step` steps. Fails with ExitCode::kDiverged, on
  // every rank, where their loss is not finite; `name` says which split it is.
  Evaluation evaluate(
      const Split& split, const std::string& name, Index step, const Interrupt& interrupt = [] {});
  // Those of the data set's splits that the configuration asks for.
  Measures measure(
      const Dataset& dataset, Index step, const Interrupt& interrupt = [] {});
  // How well experts know the clusters of a split apart: sum over experts e of n_e / n H(cluster | e), in nats, as
  // evaluation sends its samples to experts (Chen et al., 2208.02813). Nothing where samples are of no known cluster,
  // or the model has no mixture that evaluation routes by.
  std::optional<double> dispatch_entropy(
      const Split& split, Index step, const Interrupt& interrupt = [] {});

  // The split's samples in device memory of the arena; first_sample: the number of the first one.
  Microbatch load_microbatch(kernels::Arena& arena, const Split& split, std::span<const std::uint32_t> samples,
                             Index first_sample);
  // Collective. In words: of all ranks' passes with a probe; `none` where every output was finite.
  std::string first_bad_layer(const FiniteProbe& probe, const std::string& none);

  // XXH3-128 over all parameters in table order, experts in theirs: 32 hexadecimal digits, on every rank.
  std::string digest();

  // An array of trained_size() elements in the parameters' layout that a checkpoint holds beside them: "PREFIX/NAME".
  struct Companion {
    std::string prefix;
    float* values = nullptr;  // device memory
  };
  void save(Ranks& ranks, const std::filesystem::path& path, const io::CheckpointInfo& info,
            std::span<const Companion> companions = {});
  io::CheckpointInfo load(Ranks& ranks, const std::filesystem::path& path, std::span<const Companion> companions = {});

 private:
  Pass evaluation_pass(Index step, PhaseSeconds& seconds);
  Index microbatches_of_a_step() const;  // of this rank
  // A split in microbatches over ranks. Each rank has as many, some of which may be short or empty: experts need all
  // ranks.
  struct Share {
    Index microbatch, per_rank, first;  // samples of one; microbatches of a rank; this rank's first sample
  };
  Share share_of(const Split& split) const;
  // Of this rank's microbatch i, until the next call.
  std::span<const std::uint32_t> samples_of(const Split& split, const Share& share, Index i);

  struct HostArrays {
    std::vector<std::vector<float>> copies;  // parameters, then each companion, in the store's layout
    std::vector<io::ArraySlice> slices;
  };
  HostArrays host_arrays(std::span<const Companion> companions);

  Config config_;
  const Context& context_;
  Mesh& mesh_;
  ParameterTable table_;
  std::unique_ptr<Model> model_;
  kernels::Arena arena_;
  std::unique_ptr<ParameterStore> parameters_;
  std::unique_ptr<PackedWeights> packed_weights_;
  std::vector<std::uint32_t> samples_;  // at hand
  std::vector<std::uint8_t> staged_images_;
  std::vector<float> staged_features_;
  std::vector<std::int32_t> staged_labels_;
};

}  // namespace switchyard
