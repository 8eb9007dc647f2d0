// One training from its first step, or a checkpoint, to its last: the loop, and what it writes and shows on the way.
#pragma once

#include <csignal>
#include <memory>
#include <optional>
#include <string>

#include "app/progress.hpp"
#include "app/routing_watch.hpp"
#include "app/run_folder.hpp"
#include "app/session.hpp"
#include "io/results.hpp"
#include "train/trainer.hpp"

namespace switchyard {

// Collective, as is every member function.
class TrainingRun {
 public:
  // stop_signal: not zero once this rank was told to stop.
  TrainingRun(World& world, const Config& config, const Dataset& dataset,
              const volatile std::sig_atomic_t& stop_signal);

  // Takes the run's folder and leaves it free for a new run, or fails.
  void start(bool overwrite);
  // Takes the run's folder and goes on from checkpoint `from`, or from the run's newest one where that is empty. From a
  // checkpoint elsewhere it goes on in a folder without a run alone, unless that may be overwritten.
  void resume(const std::string& from, bool overwrite);
  // Returns the exit code.
  int run();

 private:
  void take_folder();
  io::ResultsWriter::Attributes attributes() const;
  // What bits depend on: attributes of results and checkpoints.
  io::ResultsWriter::Attributes machine() const;
  void record_algorithms();
  void open_results();
  void tell_warnings();  // of the results file
  void warn_of_missing_rows() const;
  void describe() const;
  bool train();  // false where the run was stopped before its end
  bool is_done() const;
  bool is_evaluated(Index step) const;
  bool told_to_stop();
  void step();
  void log_step(const StepMetrics& metrics);
  void append_rows(const StepMetrics& metrics);
  void evaluate();  // leaves the evaluation due where the run is told to stop meanwhile
  void append_evaluation();
  struct Stopped {};
  void throw_if_stopped();
  void measure();  // throws Stopped, on every rank
  void save_checkpoint();
  int finish(bool stopped);
  void record_outcome(const std::string& digest);
  void print_scores() const;
  double epoch_of(Index step) const;
  void record_failure(const char* status) noexcept;

  World& world_;
  const Config& config_;
  const volatile std::sig_atomic_t& stop_signal_;
  RunFolder folder_;
  Session session_;
  bool knows_clusters_;  // of its data
  std::unique_ptr<Trainer> trainer_;
  std::optional<io::ResultsWriter> results_;  // rank 0
  std::optional<Progress> progress_;
  std::optional<RoutingWatch> routing_watch_;
  std::optional<Measures> measures_;  // of the parameters as they are now
  Index saved_step_ = -1;             // of the newest checkpoint that this run wrote or found in its own folder
  double step_seconds_ = 0, seconds_since_evaluation_ = 0;
  Index num_steps_here_ = 0;
};

}  // namespace switchyard
