// switchyard study run: trainings side by side, as many as cores allow, until each has ended or all are stopped.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <deque>
#include <memory>

#include "app/child_process.hpp"
#include "app/renewed_line.hpp"
#include "app/session.hpp"
#include "app/study.hpp"
#include "app/study_folder.hpp"
#include "app/text.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

class StudyRunner {
 public:
  StudyRunner(const Study& study, const CommandLine& line, int jobs, StudyInputs& inputs)
      : study_(study), line_(line), jobs_(jobs), inputs_(inputs) {}

  int run(std::vector<const StudyRun*> runs);

 private:
  struct Job {
    const StudyRun* run;
    double start;
    double first_fraction, fraction;
    std::unique_ptr<ChildProcess> process;
  };

  bool fits(const StudyRun& run) const;
  void start_next();
  void start(const StudyRun& run);
  void collect_ended();
  void ended(const Job& job);
  void stop_all();
  void show_progress();
  void say(const std::string& text);

  const Study& study_;
  const CommandLine& line_;
  int jobs_;  // 0: as many as cores allow
  StudyInputs& inputs_;
  std::deque<const StudyRun*> waiting_;
  std::vector<Job> running_;
  std::size_t num_runs_ = 0, num_done_ = 0, num_failed_ = 0, num_stopped_ = 0, num_elsewhere_ = 0;
  double began_ = seconds_now(), shown_ = 0, told_to_stop_ = 0;
  int signals_seen_ = 0;
  bool ends_at_once_ = false;
  RenewedLine progress_{true};
};

bool StudyRunner::fits(const StudyRun& run) const {
  if (running_.empty()) return true;
  if (jobs_ > 0) return static_cast<int>(running_.size()) < jobs_;
  int used = cores_of(run);
  for (const Job& job : running_) used += cores_of(*job.run);
  return used <= num_cores();
}

void StudyRunner::say(const std::string& text) {
  progress_.clear();
  // Where standard output has no room, main() says so; the runs go on.
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

void StudyRunner::start_next() {
  const StudyRun& run = *waiting_.front();
  waiting_.pop_front();
  try {
    start(run);
  } catch (const std::exception& error) {
    ++num_failed_;
    say(fmt::format("failed   {}  not started: {}", run.name, error.what()));
  }
}

void StudyRunner::start(const StudyRun& run) {
  // Again, now: another process may have been at it meanwhile.
  const RunReport report = look_at(study_, run, inputs_);
  if (report.state == RunState::kDone) {
    ++num_done_;
    return;
  }
  if (report.state == RunState::kRunning) {
    ++num_elsewhere_;
    return say(fmt::format("left     {}: another process runs it", run.name));
  }
  refuse_foreign(run, report);
  const fs::path folder = run_folder(run);
  fs::create_directories(folder);
  if (report.damaged_results) {
    // Resuming would go on with it; a checkpoint is all that it takes.
    fs::path aside = folder / "results.h5.damaged";
    for (int number = 2; fs::exists(aside); ++number) aside = folder / fmt::format("results.h5.damaged{}", number);
    say(fmt::format("warning: {}; kept as {}", report.results.problem, aside.string()));
    fs::rename(folder / "results.h5", aside);
  }
  const fs::path config = folder / "run.cfg";
  write_text(config, to_text(run.config));
  auto process =
      std::make_unique<ChildProcess>(training_words(line_, run.ranks, config.string(), {"--resume"}), log_of(run));
  running_.push_back({&run, seconds_now(), report.fraction, report.fraction, std::move(process)});
}

void StudyRunner::ended(const Job& job) {
  const StudyRun& run = *job.run;
  const int code = job.process->exit_code();
  const bool stopped = code == static_cast<int>(ExitCode::kStopped) || (code != 0 && signals_seen_ > 0);
  const RunReport report = look_at(study_, run, inputs_);
  // A training that another one keeps out ends with this code. Ranks of a launcher that was killed may still hold the
  // folder for a moment.
  const bool is_kept_out = code == 0 || code == static_cast<int>(ExitCode::kFailure);
  if (is_kept_out && !stopped && report.state == RunState::kRunning) {
    ++num_elsewhere_;
    return say(fmt::format("left     {}: another process began it at the same time", run.name));
  }
  if (code != 0 && report.state == RunState::kDone) {
    ++num_done_;
    return say(fmt::format("done     {}: another process ended it at the same time", run.name));
  }
  const bool done = code == 0 && report.state == RunState::kDone;
  log_end(run, done ? 0 : code == 0 ? 1 : code, stopped);
  const std::string time = duration(seconds_now() - job.start), ranks = plural(run.ranks, "rank");
  if (done) {
    ++num_done_;
    say(fmt::format("done     {}  {}, {}, test accuracy {:.2f} %  ({} of {})", run.name, ranks, time,
                    100 * report.number("test_accuracy"), num_done_, num_runs_));
  } else if (stopped) {
    ++num_stopped_;
    say(fmt::format("stopped  {}  {}, {}, at {:.0f} %", run.name, ranks, time, 100 * report.fraction));
  } else {
    ++num_failed_;
    std::string why =
        fmt::format("{} was removed while it ran: `study run` again begins it anew", run_folder(run).string());
    if (report.state == RunState::kForeign)
      why = "its folder now holds a run with other keys or data: " + report.detail;
    else if (std::error_code error; fs::exists(log_of(run), error))
      why = fmt::format("{} ends with\n{}", log_of(run).string(), last_lines(log_of(run), 5));
    say(fmt::format("failed   {}  {}, {}, {}; {}", run.name, ranks, time, describe_exit(code), why));
  }
}

void StudyRunner::collect_ended() {
  for (std::size_t i = 0; i < running_.size();) {
    if (running_[i].process->is_running()) {
      ++i;
      continue;
    }
    const Job job = std::move(running_[i]);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
    ended(job);
  }
}

// The first signal asks for checkpoints, a later one ends all. Both are passed on again and again: a launcher that is
// only just starting loses the one, scripts/mpirun.sh takes the first SIGTERM for the other.
void StudyRunner::stop_all() {
  const int signals = num_signals();
  const bool is_new = signals > signals_seen_;
  if (signals_seen_ == 0)
    say(fmt::format("stopping {}", plural(static_cast<Index>(running_.size()), "run")));
  else if (is_new)
    ends_at_once_ = true;
  signals_seen_ = signals;
  if (!is_new && seconds_now() - told_to_stop_ < (ends_at_once_ ? 0.5 : 2)) return;
  for (Job& job : running_) job.process->send(ends_at_once_ ? SIGTERM : SIGUSR1);
  told_to_stop_ = seconds_now();
}

void StudyRunner::show_progress() {
  if (progress_.columns() == 0 || seconds_now() - shown_ < 1) return;
  shown_ = seconds_now();
  std::string text = fmt::format("{}: {} of {} done", study_.name, num_done_, num_runs_);
  if (num_failed_ > 0) text += fmt::format(", {} failed", num_failed_);
  text += fmt::format(", {}", duration(shown_ - began_));
  for (Job& job : running_) {
    job.fraction = std::max(job.fraction, look_at(study_, *job.run, inputs_).fraction);
    text += fmt::format(" | {} {:.0f} %", job.run->name, 100 * job.fraction);
    const double here = job.fraction - job.first_fraction;
    if (here > 0.02) text += fmt::format(", {} left", duration((shown_ - job.start) * (1 - job.fraction) / here));
  }
  progress_.show(text);
}

int StudyRunner::run(std::vector<const StudyRun*> runs) {
  num_runs_ = runs.size();
  waiting_.assign(runs.begin(), runs.end());
  catch_study_signals();
  while (!running_.empty() || (!waiting_.empty() && num_signals() == 0)) {
    while (!waiting_.empty() && num_signals() == 0 && fits(*waiting_.front())) start_next();
    collect_ended();
    if (num_signals() > 0) stop_all();
    show_progress();
    usleep(20000);
  }
  progress_.clear();
  const std::size_t not_run = waiting_.size();
  std::string sum =
      fmt::format("{}: {}, {} done", study_.name, plural(static_cast<Index>(num_runs_), "run"), num_done_);
  for (const auto& [count, what] : {std::pair{num_failed_, "failed"},
                                    {num_stopped_, "stopped"},
                                    {num_elsewhere_, "elsewhere"},
                                    {not_run, "not begun"}})
    if (count > 0) sum += fmt::format(", {} {}", count, what);
  say(sum);
  if (num_failed_ > 0) return static_cast<int>(ExitCode::kFailure);
  return num_stopped_ + not_run > 0 ? static_cast<int>(ExitCode::kStopped) : 0;
}

// The runs that --only names, or all.
std::vector<const StudyRun*> chosen_runs(const Study& study, const CommandLine& line) {
  std::vector<const StudyRun*> runs;
  if (line.options.count("only") == 0) {
    for (const StudyRun& run : study.runs) runs.push_back(&run);
    return runs;
  }
  const std::string only = line.options["only"].as<std::string>();
  for (std::size_t i = 0; i < study.runs.size(); ++i)
    if (only == std::to_string(i) || only == study.runs[i].name) return {&study.runs[i]};
  fail_usage("--only {}: there is no such run: give an index from 0 to {}, or a name, of `switchyard study list {}`",
             only, study.runs.size() - 1, study.source);
}

}  // namespace

int study_run(const Study& study, const CommandLine& line) {
  int jobs = 0;
  if (line.options.count("jobs") > 0) {
    const std::string text = line.options["jobs"].as<std::string>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), jobs);
    if (error != std::errc() || end != text.data() + text.size() || jobs < 1)
      fail_usage("--jobs {}: give a whole number of at least 1", text);
  }
  const std::vector<const StudyRun*> runs = chosen_runs(study, line);
  StudyInputs inputs(study.folder());
  std::vector<RunReport> reports;
  std::size_t num_done = 0;
  for (const StudyRun* run : runs) {
    reports.push_back(look_at(study, *run, inputs));
    const RunState state = reports.back().state;
    num_done += state == RunState::kDone;
    if (state == RunState::kPending || state == RunState::kFailed) require_data(data_options(run->config));
  }
  claim_folder(study);
  for (std::size_t i = 0; i < runs.size(); ++i) refuse_foreign(*runs[i], reports[i]);
  fmt::print("{}: {} in {}, {} done before; {}\n", study.name, plural(static_cast<Index>(runs.size()), "run"),
             study.folder(), num_done, plural(num_cores(), "core"));
  std::fflush(stdout);
  return StudyRunner(study, line, jobs, inputs).run(runs);
}

}  // namespace switchyard
