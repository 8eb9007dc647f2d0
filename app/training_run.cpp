#include "app/training_run.hpp"

#include <mpi.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "app/result_rows.hpp"
#include "app/resume.hpp"
#include "app/text.hpp"
#include "io/checkpoint.hpp"
#include "io/schema.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/version.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// "1,3,5"
std::string block_list(const std::vector<Index>& blocks) {
  std::string text;
  for (const Index block : blocks) text += (text.empty() ? "" : ",") + std::to_string(block);
  return text;
}

// Past the end of its cosine a run would go on at a learning rate of zero.
void check_length(const Config& config, const Trainer& trainer) {
  const Index schedule_steps = config.train.schedule_epochs * trainer.steps_per_epoch();
  if (config.train.schedule == "cosine" && schedule_steps > 0 && trainer.total_steps() > schedule_steps)
    fail_usage(
        "run.steps = {} is past the end of the learning rate's schedule: train.schedule_epochs = {} of {} steps each "
        "end after step {}. Raise train.schedule_epochs, set it to 0 for the run's own length, or lower run.steps",
        trainer.total_steps(), config.train.schedule_epochs, trainer.steps_per_epoch(), schedule_steps);
}

void warn_of_long_warmup(const Config& config, const Trainer& trainer) {
  if (config.train.warmup_steps <= trainer.total_steps()) return;
  fmt::print(stderr,
             "switchyard: warning: train.warmup_steps = {}: the run has {}, so the learning rate never reaches "
             "train.lr; warm up for fewer steps, or train for more\n",
             config.train.warmup_steps, plural(trainer.total_steps(), "step"));
}

}  // namespace

TrainingRun::TrainingRun(World& world, const Config& config, const Dataset& dataset,
                         const volatile std::sig_atomic_t& stop_signal)
    : world_(world),
      config_(config),
      stop_signal_(stop_signal),
      folder_(fs::path(config.run.out) / config.run.name),
      session_(config, world),
      knows_clusters_(!dataset.train.clusters.empty()),
      trainer_(world.together([&] {
        require_a_batch(config, dataset);
        auto trainer = std::make_unique<Trainer>(config, session_.context, session_.mesh, dataset);
        check_length(config, *trainer);
        if (world.speaks()) warn_of_long_warmup(config, *trainer);
        return trainer;
      })) {}

void TrainingRun::take_folder() {
  world_.together([&] {
    if (world_.speaks()) folder_.lock();
  });
}

void TrainingRun::start(bool overwrite) {
  take_folder();
  // Whatever is wrong with it is found before an earlier run is removed.
  start_from(world_, *trainer_, config_);
  world_.together([&] {
    if (world_.speaks()) folder_.make_free(overwrite, config_.train.start, "train.start = " + config_.train.start);
  });
}

void TrainingRun::resume(const std::string& from, bool overwrite) {
  take_folder();
  const auto path = switchyard::resume(world_, *trainer_, config_, folder_.path(), from, machine());
  // A checkpoint elsewhere is not this run's own. Rank 0 decides: ranks may see a file system at different times.
  std::error_code ignored;
  char own = path && fs::equivalent(*path, folder_.checkpoint(trainer_->step()), ignored);
  broadcast(world_.comm(), "whether the checkpoint is the run's own", &own, sizeof(own), 0);
  if (own) saved_step_ = trainer_->step();
  world_.together([&] {
    if (!world_.speaks()) return;
    if (own && overwrite)
      fail_usage("--resume {}: --overwrite would remove it with the run that it is of: leave one of them out",
                 path->string());
    if (own) folder_.require_none_after(trainer_->total_steps());
    if (path && !own)
      folder_.make_free(overwrite, path->string(), "--resume " + path->string());
    else
      check_results(folder_.results(), config_, trainer_->data_attributes(), !path);
    // The rows of later steps are cut next. Their checkpoints go first, or a run that is killed before it saves would
    // go on from them, without those rows.
    if (own && !from.empty()) io::remove_old_checkpoints(folder_.path(), trainer_->step(), config_.checkpoint.keep);
    if (path)
      fmt::print("resuming {} after step {}\n", path->string(), trainer_->step());
    else
      fmt::print("no checkpoint in {}: starting from the beginning\n", folder_.path().string());
  });
}

void TrainingRun::describe() const {
  if (!world_.speaks()) return;
  const Mesh& mesh = session_.mesh;
  fmt::print("{}\n", describe_model(config_));
  fmt::print("parameters {} stored, {} active\n", group_digits(trainer_->table().num_stored()),
             group_digits(trainer_->num_active()));
  fmt::print("{} of {} samples, {} an epoch, microbatches of {}\n", plural(trainer_->total_steps(), "step"),
             config_.train.batch, trainer_->steps_per_epoch(), config_.train.microbatch);
  fmt::print("mesh: {} x {}, experts over {}, {} of them\n", plural(world_.size(), "rank"),
             plural(config_.parallel.threads, "thread"), plural(mesh.expert_group().size(), "rank"),
             plural(mesh.replicas().size(), "replica"));
  if (session_.context.device != Device::kCpu)
    fmt::print("device: {}\n", kernels::device_name(session_.context.device));
  const StepPlan plan = trainer_->plan();
  if (plan.recorded > 0 || plan.in_turn > 1 || plan.sums_meanwhile)
    fmt::print("a rank's microbatches: {} a step{}{}{}\n", plan.microbatches,
               plan.recorded > 0 ? fmt::format(", {} of them launched as graphs", plan.recorded) : "",
               plan.in_turn > 1 ? fmt::format(", {} in turn", plan.in_turn) : "",
               plan.sums_meanwhile ? ", gradients summed over ranks meanwhile" : "");
  std::fflush(stdout);
}

io::ResultsWriter::Attributes TrainingRun::machine() const {
  const Device device = session_.context.device;
  return {{io::schema::kLibraries, library_versions(device)}, {io::schema::kDevice, kernels::device_name(device)}};
}

io::ResultsWriter::Attributes TrainingRun::attributes() const {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  io::ResultsWriter::Attributes attributes{
      {io::schema::kConfig, to_text(config_)},
      {"name", config_.run.name},
      {"version", SWITCHYARD_VERSION},
      {"host", host},
      {"model", describe_model(config_)},
      {"ranks", std::to_string(world_.size())},
      {"threads", std::to_string(config_.parallel.threads)},
      {"expert_parallel", std::to_string(session_.mesh.expert_group().size())},
      {"reduction", config_.parallel.reduction},
      {"parameters_stored", std::to_string(trainer_->table().num_stored())},
      {"parameters_active", std::to_string(trainer_->num_active())},
      {io::schema::kMixtureBlocks, block_list(trainer_->model().mixture_blocks())},
      {io::schema::kTreeBlocks, block_list(trainer_->model().tree_blocks())},
      // Known at the end:
      {"status", "running"},
      {"digest", ""},
      {"test_accuracy", ""},
      {"test_loss", ""},
      {io::schema::kMemorisationAccuracy, ""},
      {io::schema::kMemorisationEpoch, ""},
      {io::schema::kGeneralisationAccuracy, ""},
      {io::schema::kGeneralisationEpoch, ""},
      {"seconds_per_epoch", ""},
  };
  if (!trainer_->origin().empty()) attributes[io::schema::kOrigin] = trainer_->origin();
  if (knows_clusters_) attributes[io::schema::kDispatchEntropy] = "";
  attributes.insert(trainer_->data_attributes().begin(), trainer_->data_attributes().end());
  attributes.merge(machine());
  return attributes;
}

void TrainingRun::open_results() {
  world_.together([&] {
    if (!world_.speaks()) return;
    io::ResultsShape shape;
    shape.layers = std::ssize(trainer_->model().mixture_blocks());
    shape.experts = shape.layers > 0 ? config_.ffn.experts : 0;
    shape.tree_layers = std::ssize(trainer_->model().tree_blocks());
    shape.leaves = shape.tree_layers > 0 ? experts_or_leaves(config_) : 0;
    shape.has_algorithms = session_.context.device != Device::kCpu;
    if (fs::exists(folder_.results()))
      results_ = io::ResultsWriter::reopen(folder_.results(), trainer_->step(), attributes(), shape,
                                           !trainer_->lacks_evaluation());
    else
      results_ = io::ResultsWriter::create(folder_.results(), attributes(), shape);
    tell_warnings();
    if (saved_step_ > 0) warn_of_missing_rows();
  });
}

// Rows are on the disk before a checkpoint is.
void TrainingRun::warn_of_missing_rows() const {
  const Index step = trainer_->step(), last = results_->last_step();
  if (last >= step - step % config_.run.log_every) return;
  fmt::print(stderr,
             "switchyard: warning: {}: holds no rows of steps {} to {}, which this run trained before: the file was "
             "moved away, damaged or cut short. For rows of all steps, go on from an earlier checkpoint (--resume "
             "FILE), or train anew (--overwrite)\n",
             folder_.results().string(), last + 1, step);
}

void TrainingRun::tell_warnings() {
  for (const std::string& warning : results_->take_warnings()) {
    if (progress_)
      progress_->note("warning: " + warning);
    else
      fmt::print(stderr, "switchyard: warning: {}\n", warning);
  }
}

int TrainingRun::run() {
  open_results();
  try {
    describe();
    return finish(!train());
  } catch (const Error& error) {
    record_failure(error.code() == ExitCode::kDiverged ? "diverged" : "failed");
    throw;
  } catch (...) {
    record_failure("failed");
    throw;
  }
}

// The failure itself is what the user hears of.
void TrainingRun::record_failure(const char* status) noexcept {
  try {
    progress_.reset();
    if (results_) results_->set_attribute("status", status);
  } catch (const std::exception&) {
  }
}

bool TrainingRun::train() {
  const RouterOptions& router = trainer_->model().options().ffn.router;
  const std::vector<Index>& blocks = trainer_->model().mixture_blocks();
  progress_.emplace(world_.speaks(), !blocks.empty() && router_row(router.name).learned, trainer_->step(),
                    trainer_->total_steps(), trainer_->steps_per_epoch(), config_.train.batch);
  routing_watch_.emplace(router.name, experts_per_token(router), blocks);
  const Index checkpoint_steps = config_.checkpoint.every > 0 ? config_.checkpoint.every : trainer_->steps_per_epoch();
  // A checkpoint of a run that was stopped before an evaluation; this run may be longer, or evaluate less often.
  trainer_->set_lacks_evaluation(trainer_->lacks_evaluation() && is_evaluated(trainer_->step()));
  while (!is_done() && !told_to_stop()) {
    if (trainer_->lacks_evaluation())
      evaluate();
    else
      step();
    if (!trainer_->lacks_evaluation() && trainer_->step() % checkpoint_steps == 0) save_checkpoint();
  }
  return is_done();
}

bool TrainingRun::is_done() const {
  return (trainer_->step() == trainer_->total_steps() || trainer_->is_over()) && !trainer_->lacks_evaluation();
}

bool TrainingRun::is_evaluated(Index step) const {
  const Index eval_steps = config_.run.eval_every * trainer_->steps_per_epoch();
  return step == trainer_->total_steps() || (eval_steps > 0 && step % eval_steps == 0);
}

// A signal may reach one rank alone, and at any time; all of them hear of it at the same place.
bool TrainingRun::told_to_stop() { return any(world_.comm(), "agreement on whether to stop", stop_signal_ != 0); }

void TrainingRun::step() {
  const StepMetrics metrics = world_.diverging_alike([&] { return trainer_->train_step(); });
  measures_.reset();
  trainer_->set_lacks_evaluation(is_evaluated(metrics.step));
  log_step(metrics);
}

void TrainingRun::log_step(const StepMetrics& metrics) {
  step_seconds_ += metrics.seconds;
  seconds_since_evaluation_ += metrics.seconds;
  ++num_steps_here_;
  if (!world_.speaks()) return;
  progress_->step(metrics);
  for (const std::string& warning : routing_watch_->step(metrics.step, metrics.routing))
    progress_->note("warning: " + warning);
  // A step that is evaluated may be the last one.
  if (metrics.step % config_.run.log_every == 0 || trainer_->lacks_evaluation()) append_rows(metrics);
}

void TrainingRun::append_rows(const StepMetrics& metrics) {
  results_->append(step_row(metrics, config_.train.batch));
  if (metrics.routing.layers > 0) results_->append(routing_row(metrics.step, metrics.routing));
  if (metrics.trees.layers > 0) results_->append(io::TreeRow{metrics.step, metrics.trees.entropy, metrics.trees.share});
  tell_warnings();
}

void TrainingRun::evaluate() {
  const Index num_reductions = trainer_->scores().num_reductions;
  try {
    measure();
  } catch (const Stopped&) {
    return;
  }
  saved_step_ = -1;  // a checkpoint of this step, of a run that was stopped, lacks the evaluation
  if (!world_.speaks()) return;
  append_evaluation();
  const double epoch = epoch_of(trainer_->step());
  progress_->evaluation(epoch, *measures_, seconds_since_evaluation_ + measures_->seconds());
  if (trainer_->scores().num_reductions > num_reductions)
    progress_->note(fmt::format("learning rate times {} after epoch {:.4g}: no better {} accuracy for {}",
                                config_.train.plateau_factor, epoch, config_.train.plateau_of,
                                plural(config_.train.plateau, "epoch")));
  seconds_since_evaluation_ = 0;
}

void TrainingRun::append_evaluation() {
  results_->append(evaluation_row(trainer_->step(), epoch_of(trainer_->step()), *measures_));
}

void TrainingRun::measure() {
  measures_ = world_.diverging_alike([&] { return trainer_->measure([&] { throw_if_stopped(); }); });
  trainer_->observe(*measures_);
}

void TrainingRun::throw_if_stopped() {
  if (told_to_stop()) throw Stopped{};
}

double TrainingRun::epoch_of(Index step) const {
  return static_cast<double>(step) / static_cast<double>(trainer_->steps_per_epoch());
}

// More come while the run goes on: experts' products have as many shapes as experts have numbers of tokens.
void TrainingRun::record_algorithms() {
  const Device device = session_.context.device;
  if (device == Device::kCpu) return;
  std::istringstream text(kernels::product_algorithms(device));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  results_->append_algorithms(lines);
}

void TrainingRun::save_checkpoint() {
  world_.together([&] {
    if (!world_.speaks()) return;
    record_algorithms();
    results_->sync();
  });
  const fs::path path = folder_.checkpoint(trainer_->step());
  trainer_->save(world_.comm(), path, machine());
  saved_step_ = trainer_->step();
  if (world_.speaks()) io::remove_old_checkpoints(folder_.path(), saved_step_, config_.checkpoint.keep);
}

int TrainingRun::finish(bool stopped) {
  if (saved_step_ != trainer_->step()) save_checkpoint();
  const fs::path checkpoint = folder_.checkpoint(trainer_->step());
  std::optional<double> dispatch_entropy;
  try {
    // A run resumed after its last step. Of a step that was evaluated before, the scores are not changed by this.
    if (!stopped && !measures_) {
      measure();
      if (world_.speaks() && results_->last_evaluation() < trainer_->step()) append_evaluation();
    }
    if (!stopped) dispatch_entropy = trainer_->dispatch_entropy([&] { throw_if_stopped(); });
  } catch (const Stopped&) {
    stopped = true;
  }
  if (stopped) {
    if (world_.speaks()) {
      progress_.reset();
      results_->set_attribute("status", "stopped");
      results_->close();
      fmt::print("stopped after step {} on signal; go on with --resume\nresult {}\ncheckpoint {}\n", trainer_->step(),
                 folder_.results().string(), checkpoint.string());
    }
    return static_cast<int>(ExitCode::kStopped);
  }
  const std::string digest = trainer_->digest();
  if (!world_.speaks()) return 0;
  progress_.reset();
  if (dispatch_entropy) results_->set_attribute(io::schema::kDispatchEntropy, fmt::format("{}", *dispatch_entropy));
  record_outcome(digest);
  fmt::print("result {}\ncheckpoint {}\n", folder_.results().string(), checkpoint.string());
  print_scores();
  fmt::print("test accuracy {:.2f} % loss {:.4f}\n", measures_->test.accuracy, measures_->test.loss);
  if (dispatch_entropy) fmt::print("dispatch entropy {:.4f} nats\n", *dispatch_entropy);
  fmt::print("digest {}\n", digest);
  return 0;
}

void TrainingRun::record_outcome(const std::string& digest) {
  record_algorithms();  // and those of the evaluation
  results_->set_attribute("status", "finished");
  results_->set_attribute("digest", digest);
  results_->set_attribute("test_accuracy", fmt::format("{}", measures_->test.accuracy / 100));
  results_->set_attribute("test_loss", fmt::format("{}", measures_->test.loss));
  const auto record = [&](const Score& score, const char* accuracy, const char* epoch) {
    if (!score.is_tracked()) return;
    results_->set_attribute(accuracy, fmt::format("{}", score.accuracy / 100));
    results_->set_attribute(epoch, fmt::format("{}", epoch_of(score.step)));
  };
  const Scores& scores = trainer_->scores();
  record(scores.memorisation, io::schema::kMemorisationAccuracy, io::schema::kMemorisationEpoch);
  record(scores.generalisation, io::schema::kGeneralisationAccuracy, io::schema::kGeneralisationEpoch);
  if (num_steps_here_ > 0)
    results_->set_attribute("seconds_per_epoch",
                            fmt::format("{:.6g}", step_seconds_ / static_cast<double>(num_steps_here_) *
                                                      static_cast<double>(trainer_->steps_per_epoch())));
  results_->close();
}

void TrainingRun::print_scores() const {
  const Scores& scores = trainer_->scores();
  std::string since;
  const auto print = [&](const char* name, const char* split, const Score& score) {
    if (!score.is_tracked()) return;
    fmt::print("{} accuracy {:.2f} % after epoch {:.4g}\n", name, score.accuracy, epoch_of(score.step));
    since += fmt::format("{} better {} accuracy for {} after epoch {:.4g}", since.empty() ? "no" : ", no", split,
                         plural(config_.train.patience, "epoch"), epoch_of(score.step));
  };
  print("memorisation", "training", scores.memorisation);
  print("generalisation", "validation", scores.generalisation);
  if (trainer_->is_over())
    fmt::print("stopped early: after epoch {:.4g} of {}: {}\n", epoch_of(trainer_->step()), config_.run.epochs, since);
}

}  // namespace switchyard
