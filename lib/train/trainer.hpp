// A network in training on this rank: optimiser, data, and the step over them. step.cpp holds the step itself,
// metrics.cpp what it measures, scores.cpp what evaluations have come to, state.cpp checkpoints.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "data/dataset.hpp"
#include "io/checkpoint.hpp"
#include "kernels/api/device.hpp"
#include "model/model.hpp"
#include "network/network.hpp"
#include "train/optimizer.hpp"
#include "train/recorded_microbatches.hpp"
#include "train/schedule.hpp"
#include "train/scores.hpp"

namespace switchyard {

// Of one step, the same on every rank but for the seconds, which are this rank's.
struct StepMetrics {
  Index step = 0;  // steps done, this one included
  double epoch = 0;
  double loss = 0;            // cross entropy, mean over the batch, and over both passes where there are two
  AuxiliaryLosses auxiliary;  // mean over microbatches
  double accuracy = 0;        // percent of the batch, in training mode, mean over passes
  double learning_rate = 0, gradient_norm = 0;
  double seconds = 0;
  PhaseSeconds phases;
  RoutingLoad routing;
  TreeLoad trees;
  bool prepares = false;  // launches were recorded in it, or will be in the next step of its kind: that one is faster
};

// How this rank's microbatches of a step are computed.
struct StepPlan {
  Index microbatches = 0;
  Index recorded = 0;           // from the first on, whose launches are recorded (compute.graphs)
  Index in_turn = 1;            // that take turns (parallel.overlap)
  bool sums_meanwhile = false;  // whether gradients are summed over ranks before all are computed
};

// In words: what training that begins with a checkpoint's parameters began with. `path` is for the reader alone.
std::string origin_of(const std::filesystem::path& path, const io::CheckpointInfo& info);
// Whether two of these tell of the same parameters, wherever their checkpoints lay.
bool tells_same_origin(const std::string& a, const std::string& b);

// Fails with kUsage where the training split does not fill a batch.
void require_a_batch(const Config& config, const Dataset& dataset);

class Trainer {
 public:
  // On every rank, each for itself: it waits for no other. The dataset must outlive the trainer; its training split may
  // be empty where no step is trained.
  Trainer(const Config& config, const Context& context, Mesh& mesh, const Dataset& dataset);

  // One step over the next batch. Fails with ExitCode::kDiverged, before parameters change, where the loss or a
  // gradient is not finite.
  StepMetrics train_step();
  // As the network's, of its dataset's splits after the steps done so far.
  using Interrupt = Network::Interrupt;
  Evaluation evaluate() { return network_.evaluate(dataset_.test, "test", step_); }
  Measures measure(const Interrupt& interrupt = [] {}) { return network_.measure(dataset_, step_, interrupt); }
  // Takes what was measured of the parameters as they are into account. The same on every rank.
  void observe(const Measures& measures);
  // Whether an evaluation of the parameters as they are is due and not made. Checkpoints carry it; observe() ends it.
  bool lacks_evaluation() const { return lacks_evaluation_; }
  void set_lacks_evaluation(bool lacks) { lacks_evaluation_ = lacks; }
  const Scores& scores() const { return scores_; }
  // By train.patience.
  bool is_over() const { return score_rules_.patience > 0 && switchyard::is_over(scores_); }

  // Of the training split.
  std::optional<double> dispatch_entropy(const Interrupt& interrupt = [] {}) {
    return network_.dispatch_entropy(dataset_.train, step_, interrupt);
  }

  Index step() const { return step_; }  // done so far
  Index steps_per_epoch() const { return steps_per_epoch_; }
  Index total_steps() const { return total_steps_; }
  // data_attributes() of its dataset; checkpoints carry them.
  const std::map<std::string, std::string>& data_attributes() const { return data_attributes_; }
  const Network& network() const { return network_; }
  Network& network() { return network_; }
  const ParameterTable& table() const { return network_.table(); }
  const Model& model() const { return network_.model(); }
  Index num_active() const { return network_.num_active(); }
  const ParameterStore& parameters() const { return network_.parameters(); }
  ParameterStore& parameters() { return network_.parameters(); }
  Index num_arena_allocations() const;
  StepPlan plan() const;

  std::string digest() { return network_.digest(); }
  // `attributes` stand in the file beside those of the data.
  void save(Ranks& ranks, const std::filesystem::path& path, const std::map<std::string, std::string>& attributes = {});
  // With the optimiser and the place in the data.
  io::CheckpointInfo load(Ranks& ranks, const std::filesystem::path& path);
  // Begins at step 0 with the parameters of a checkpoint.
  void start_from(Ranks& ranks, const std::filesystem::path& path);
  // In words: which checkpoint its parameters started from; empty where they were drawn.
  const std::string& origin() const { return origin_; }

 private:
  // What holds the activations of a microbatch at hand. Those that take turns have one each; the first has the
  // network's.
  struct Strand {
    Model* model;
    kernels::Arena* arena;
    std::unique_ptr<kernels::Stream> exchange_stream;  // null: there is but one strand, or no tokens travel
  };
  struct OtherActivations {
    std::unique_ptr<Model> model;
    kernels::Arena arena;
  };

  // Whether ranks compute while others' data travel (parallel.overlap).
  bool overlaps_exchanges() const;
  // The strands of a step: two where one has something to do while the other waits.
  Index num_strands() const;
  Pass training_pass(const Context& context, Strand& strand, PhaseSeconds& seconds);
  // Of this rank's microbatch i in the batch.
  Microbatch load_training_microbatch(kernels::Arena& arena, Index i);
  std::span<const std::uint32_t> batch_samples();
  void add_metrics(const Pass& pass, const Model& model, const Model::Losses& losses);
  Index batch_rows() const { return config_.train.batch * model().options().training_passes(); }
  // The step's gradient norm among them, whose sums the host reads with the metrics: one wait for the device.
  StepMetrics read_metrics(const GradientSums::Totals& totals);
  RoutingLoad read_routing(std::span<const float> sums) const;
  TreeLoad read_trees(std::span<const float> sums) const;
  [[noreturn]] void fail_not_finite(const StepMetrics& metrics);
  Index num_metrics() const;

  std::vector<Network::Companion> companions();  // the optimiser's state

  Config config_;
  const Context& context_;
  Mesh& mesh_;
  const Dataset& dataset_;
  const std::map<std::string, std::string> data_attributes_;
  Index steps_per_epoch_, total_steps_;
  Index num_microbatches_, local_microbatches_, first_microbatch_;  // of a batch
  Index step_ = 0;

  Network network_;
  std::vector<std::unique_ptr<OtherActivations>> others_;
  std::vector<Strand> strands_;
  std::unique_ptr<Turns> turns_;
  Context microbatch_context_;  // of the step at hand
  std::unique_ptr<GradientSums> gradients_;
  std::unique_ptr<GradientSquares> gradient_squares_;
  std::unique_ptr<Optimizer> optimizer_;
  ScheduleOptions schedule_;
  ScoreRules score_rules_;
  Scores scores_;
  bool lacks_evaluation_ = false;
  std::string origin_;
  std::unique_ptr<RecordedMicrobatches> recorded_;  // null: none are

  Index order_epoch_ = -1;
  std::vector<std::uint32_t> order_;  // of the epoch
  std::vector<float> counts_;         // on their way into the metrics
};

}  // namespace switchyard
