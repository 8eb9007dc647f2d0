// switchyard train: from a configuration to a results file, checkpoints and a digest.
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <optional>
#include <span>

#include "app/commands.hpp"
#include "app/progress.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "config/command_line.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "io/schema.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

volatile std::sig_atomic_t stop_signal = 0;

// A second signal of the same kind ends the process as usual.
void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = [](int signal) { stop_signal = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

// In nats; 0 where there are no tokens.
float load_entropy(std::span<const float> tokens_per_expert) {
  double total = 0, entropy = 0;
  for (float tokens : tokens_per_expert) total += tokens;
  for (float tokens : tokens_per_expert)
    if (tokens > 0) entropy -= tokens / total * std::log(tokens / total);
  return static_cast<float>(entropy);
}

struct RunFiles {
  fs::path folder;
  fs::path results() const { return folder / "results.h5"; }
};

class TrainingRun {
 public:
  TrainingRun(World& world, const Config& config, const Dataset& dataset)
      : world_(world),
        config_(config),
        files_{fs::path(config.run.out) / config.run.name},
        session_(config, world),
        trainer_(world.together(
            [&] { return std::make_unique<Trainer>(config, session_.context, session_.mesh, dataset); })) {}

  // Leaves the folder free for a new run, or fails.
  void prepare_folder(bool resumes, bool overwrite);
  void resume(const std::string& from);
  int run();

 private:
  io::ResultsWriter::Attributes attributes() const;
  void open_results();
  void describe() const;
  StepMetrics train_step();
  void log_step(const StepMetrics& metrics);
  void evaluate();
  void save_checkpoint();
  int finish(bool stopped);

  World& world_;
  const Config& config_;
  RunFiles files_;
  Session session_;
  std::unique_ptr<Trainer> trainer_;
  std::optional<io::ResultsWriter> results_;  // rank 0
  std::optional<Progress> progress_;
  std::optional<Evaluation> evaluation_;  // of the parameters as they are now
  Index saved_step_ = -1;
  double step_seconds_ = 0, seconds_since_evaluation_ = 0;
  Index num_steps_here_ = 0;
};

void TrainingRun::prepare_folder(bool resumes, bool overwrite) {
  world_.together([&] {
    if (!world_.speaks()) return;
    std::error_code error;
    fs::create_directories(files_.folder, error);
    if (error || access(files_.folder.c_str(), W_OK) != 0)
      fail("run.out = {}: cannot write to {} ({}); choose a folder that can be written", config_.run.out,
           files_.folder.string(), error ? error.message() : "no permission");
    if (resumes) return;
    const auto checkpoints = io::list_checkpoints(files_.folder);
    if (!overwrite && (fs::exists(files_.results()) || !checkpoints.empty()))
      fail_usage(
          "{} already holds a run; go on with it (--resume), replace it (--overwrite), or choose another run.name",
          files_.folder.string());
    for (const fs::path& checkpoint : checkpoints) fs::remove(checkpoint);
    fs::remove(files_.results());
  });
}

void TrainingRun::resume(const std::string& from) {
  std::vector<std::string> warnings;
  fs::path path = from;
  if (from.empty()) {
    const auto newest = io::newest_valid_checkpoint(world_.comm(), files_.folder, warnings);
    if (world_.speaks())
      for (const std::string& warning : warnings) fmt::print(stderr, "switchyard: warning: {}\n", warning);
    if (!newest) {
      if (world_.speaks()) fmt::print("no checkpoint in {}: starting from the beginning\n", files_.folder.string());
      return;
    }
    path = *newest;
  }
  // What a checkpoint was trained with must be what it goes on with.
  world_.together([&] {
    const io::CheckpointSummary summary = io::describe_checkpoint(path);
    if (!summary.verifies) fail("{}; resume from another checkpoint", summary.problem);
    std::string differences;
    for (const std::string& each : result_differences(parse_text(summary.info.config, path.string()), config_))
      differences += (differences.empty() ? "" : ", ") + each;
    if (!differences.empty())
      fail_usage(
          "--resume: the configuration differs from that of {}: {}. Give the values that it was trained with, or "
          "start a new run under another run.name",
          path.string(), differences);
  });
  trainer_->load(world_.comm(), path);
  saved_step_ = trainer_->step();
  if (world_.speaks()) fmt::print("resuming {} after step {}\n", path.string(), trainer_->step());
}

void TrainingRun::describe() const {
  if (!world_.speaks()) return;
  const Mesh& mesh = session_.mesh;
  fmt::print("{}\n", describe_model(config_));
  fmt::print("parameters {} stored, {} active\n", group_digits(trainer_->table().num_stored()),
             group_digits(trainer_->table().num_active(1)));
  fmt::print("{} steps of {} samples, {} an epoch, microbatches of {}\n", trainer_->total_steps(), config_.train.batch,
             trainer_->steps_per_epoch(), config_.train.microbatch);
  fmt::print("mesh: {} x {}, experts over {}, {} of them\n", plural(world_.size(), "rank"),
             plural(config_.parallel.threads, "thread"), plural(mesh.expert_group().size(), "rank"),
             plural(mesh.replicas().size(), "replica"));
  std::fflush(stdout);
}

io::ResultsWriter::Attributes TrainingRun::attributes() const {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return {
      {io::schema::kConfig, to_text(config_)},
      {"name", config_.run.name},
      {"version", SWITCHYARD_VERSION},
      {"libraries", library_versions()},
      {"host", host},
      {"model", describe_model(config_)},
      {"ranks", std::to_string(world_.size())},
      {"threads", std::to_string(config_.parallel.threads)},
      {"expert_parallel", std::to_string(session_.mesh.expert_group().size())},
      {"reduction", config_.parallel.reduction},
      {"parameters_stored", std::to_string(trainer_->table().num_stored())},
      {"parameters_active", std::to_string(trainer_->table().num_active(1))},
      // Known at the end:
      {"status", "running"},
      {"digest", ""},
      {"test_accuracy", ""},
      {"test_loss", ""},
      {"seconds_per_epoch", ""},
  };
}

void TrainingRun::open_results() {
  world_.together([&] {
    if (!world_.speaks()) return;
    const bool mixture = config_.ffn.kind == "moe";
    const io::ResultsShape shape{mixture ? config_.model.layers : 0, mixture ? config_.ffn.experts : 0};
    if (trainer_->step() > 0 && fs::exists(files_.results()))
      results_ = io::ResultsWriter::reopen(files_.results(), trainer_->step(), attributes(), shape);
    else
      results_ = io::ResultsWriter::create(files_.results(), attributes(), shape);
  });
}

int TrainingRun::run() {
  open_results();
  describe();
  progress_.emplace(world_.speaks(), trainer_->step(), trainer_->total_steps(), trainer_->steps_per_epoch(),
                    config_.train.batch);
  const Index epoch = trainer_->steps_per_epoch();
  const Index eval_steps = config_.run.eval_every * epoch;
  const Index checkpoint_steps = config_.checkpoint.every > 0 ? config_.checkpoint.every : epoch;

  bool stopped = false;
  while (trainer_->step() < trainer_->total_steps() && !stopped) {
    const StepMetrics metrics = train_step();
    evaluation_.reset();
    log_step(metrics);
    stopped = metrics.stop_requested;
    const bool last = metrics.step == trainer_->total_steps();
    if (last || (eval_steps > 0 && metrics.step % eval_steps == 0)) evaluate();
    if (last || stopped || metrics.step % checkpoint_steps == 0) save_checkpoint();
  }
  return finish(stopped && trainer_->step() < trainer_->total_steps());
}

// A loss that is not finite is so on every rank.
StepMetrics TrainingRun::train_step() {
  try {
    return trainer_->train_step(stop_signal != 0);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kDiverged) throw;
    progress_.reset();
    world_.together([&] {
      if (results_) results_->set_attribute("status", "diverged");
    });
    throw AgreedError(error.what(), error.code());
  }
}

void TrainingRun::log_step(const StepMetrics& metrics) {
  step_seconds_ += metrics.seconds;
  seconds_since_evaluation_ += metrics.seconds;
  ++num_steps_here_;
  if (!world_.speaks()) return;
  progress_->step(metrics);
  if (metrics.step % config_.run.log_every != 0) return;
  const PhaseSeconds& phases = metrics.phases;
  results_->append(io::StepRow{.step = metrics.step,
                               .epoch = metrics.epoch,
                               .loss = metrics.loss,
                               .balance_loss = metrics.auxiliary,
                               .accuracy = metrics.accuracy / 100,
                               .learning_rate = metrics.learning_rate,
                               .gradient_norm = metrics.gradient_norm,
                               .samples_per_second = static_cast<double>(config_.train.batch) / metrics.seconds,
                               .seconds = metrics.seconds,
                               .seconds_compute = metrics.seconds - phases.exchange - phases.reduce - phases.wait,
                               .seconds_exchange = phases.exchange,
                               .seconds_reduce = phases.reduce,
                               .seconds_wait = phases.wait});
  if (metrics.tokens_per_expert.empty()) return;
  const auto layers = static_cast<std::size_t>(config_.model.layers);
  io::RoutingRow routing{metrics.step, metrics.tokens_per_expert, std::vector<float>(layers, 0.0f), {}};
  const std::size_t experts = metrics.tokens_per_expert.size() / layers;
  for (std::size_t layer = 0; layer < layers; ++layer)
    routing.entropy.push_back(load_entropy(std::span(metrics.tokens_per_expert).subspan(layer * experts, experts)));
  results_->append(routing);
}

void TrainingRun::evaluate() {
  evaluation_ = trainer_->evaluate();
  if (!world_.speaks()) return;
  const double epoch = static_cast<double>(trainer_->step()) / static_cast<double>(trainer_->steps_per_epoch());
  results_->append(io::EvaluationRow{.step = trainer_->step(),
                                     .epoch = epoch,
                                     .loss = evaluation_->loss,
                                     .accuracy = evaluation_->accuracy / 100,
                                     .seconds = evaluation_->seconds});
  progress_->evaluation(epoch, *evaluation_, seconds_since_evaluation_ + evaluation_->seconds);
  seconds_since_evaluation_ = 0;
}

void TrainingRun::save_checkpoint() {
  world_.together([&] {
    if (world_.speaks()) results_->sync();
  });
  const fs::path path = io::checkpoint_path(files_.folder, trainer_->step());
  trainer_->save(world_.comm(), path);
  saved_step_ = trainer_->step();
  if (world_.speaks()) io::remove_old_checkpoints(files_.folder, config_.checkpoint.keep);
}

int TrainingRun::finish(bool stopped) {
  if (saved_step_ != trainer_->step()) save_checkpoint();
  const fs::path checkpoint = io::checkpoint_path(files_.folder, trainer_->step());
  if (stopped) {
    if (world_.speaks()) {
      progress_.reset();
      results_->set_attribute("status", "stopped");
      results_->close();
      fmt::print("stopped after step {} on signal; go on with --resume\nresult {}\ncheckpoint {}\n", trainer_->step(),
                 files_.results().string(), checkpoint.string());
    }
    return static_cast<int>(ExitCode::kStopped);
  }
  if (!evaluation_) evaluation_ = trainer_->evaluate();  // a run resumed after its last step
  const std::string digest = trainer_->digest();
  if (!world_.speaks()) return 0;
  progress_.reset();
  results_->set_attribute("status", "finished");
  results_->set_attribute("digest", digest);
  results_->set_attribute("test_accuracy", fmt::format("{}", evaluation_->accuracy / 100));
  results_->set_attribute("test_loss", fmt::format("{}", evaluation_->loss));
  if (num_steps_here_ > 0)
    results_->set_attribute("seconds_per_epoch",
                            fmt::format("{:.6g}", step_seconds_ / static_cast<double>(num_steps_here_) *
                                                      static_cast<double>(trainer_->steps_per_epoch())));
  results_->close();
  fmt::print("result {}\ncheckpoint {}\ntest accuracy {:.2f} % loss {:.4f}\ndigest {}\n", files_.results().string(),
             checkpoint.string(), evaluation_->accuracy, evaluation_->loss, digest);
  return 0;
}

}  // namespace

int train_command(World& world, const std::vector<std::string>& arguments) {
  po::options_description own;
  own.add_options()("resume", po::value<std::string>()->implicit_value(""), "")("overwrite", "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own); });
  if (line.help) {
    if (world.speaks())
      fmt::print(
          "switchyard train --config FILE [--config FILE ...] [--KEY VALUE ...]\n\n"
          "Trains on all ranks that mpirun started; files go to run.out/run.name/. Later files and keys win.\n\n"
          "  --resume [CHECKPOINT]  go on from the checkpoint, or from the newest one of the run that verifies\n"
          "  --overwrite            replace an earlier run of the same name\n\n"
          "On SIGTERM, SIGINT or SIGUSR1 the run finishes its step, writes a checkpoint and exits with code 75.\n\n{}",
          help_text());
    return 0;
  }
  const Config config = world.together([&] {
    const Config checked = config_from(line);
    check_ranks(checked, world.size());
    return checked;
  });
  world.comm().set_timeout(config.parallel.timeout);
  catch_stop_signals();
  const bool resumes = line.options.count("resume") > 0, overwrite = line.options.count("overwrite") > 0;
  const Dataset dataset = world.together([&] {
    if (resumes && overwrite) fail_usage("--resume and --overwrite exclude each other");
    return load_dataset(data_options(config));
  });
  TrainingRun run(world, config, dataset);
  run.prepare_folder(resumes, overwrite);
  if (resumes) run.resume(line.options["resume"].as<std::string>());
  return run.run();
}

}  // namespace switchyard
