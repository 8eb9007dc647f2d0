#include "app/study_folder.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>

#include "app/text.hpp"
#include "config/keys.hpp"
#include "core/error.hpp"
#include "core/files.hpp"
#include "io/checkpoint.hpp"
#include "io/disk.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr const char* kEnded = "study: ended with exit code ";
constexpr const char* kStoppedLine = "study: stopped";

// Whether another process holds the run's lock.
bool is_locked(const fs::path& folder) {
  const int fd = open((folder / "run.lock").c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  const bool locked = fcntl(fd, F_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
  close(fd);
  return locked;
}

// The exit code that ended the run's last try; 0 where that is not known, or it was stopped.
int logged_failure(const fs::path& log) {
  std::ifstream file(log, std::ios::binary);
  std::string line, last;
  while (std::getline(file, line))
    if (!line.empty()) last = line;
  return last.starts_with(kEnded) ? std::atoi(last.c_str() + std::string_view(kEnded).size()) : 0;
}

// Empty where the results are of this very run.
std::string what_is_foreign(const Study& study, const StudyRun& run, const io::ResultsSummary& results,
                            StudyInputs& inputs) {
  const auto config = results.attributes.find("config"), ranks = results.attributes.find("ranks");
  if (config == results.attributes.end()) return "its results hold no configuration";
  try {
    const Config before = parse_stored(config->second);
    const int ranks_before = ranks == results.attributes.end() ? 1 : std::atoi(ranks->second.c_str());
    if (run_identity(before, ranks_before, study.axis_keys) == run.identity)
      return inputs.differences(run.config, results.attributes);
    return joined(identity_differences(before, ranks_before, run, study.axis_keys), ", ");
  } catch (const Error& error) {
    return fmt::format("its configuration cannot be read: {}", error.what());
  }
}

double fraction_of(const Config& config, const io::ResultsSummary& results) {
  if (!results.last_step) return 0;
  const double done = config.run.steps > 0
                          ? static_cast<double>(results.last_step->step) / static_cast<double>(config.run.steps)
                          : results.last_step->epoch / static_cast<double>(config.run.epochs);
  return std::clamp(done, 0.0, 1.0);
}

}  // namespace

const char* name_of(RunState state) {
  switch (state) {
    case RunState::kDone:
      return "done";
    case RunState::kRunning:
      return "running";
    case RunState::kFailed:
      return "failed";
    case RunState::kPending:
      return "pending";
    case RunState::kForeign:
      return "foreign";
  }
  return "";
}

std::string RunReport::attribute(const std::string& name) const {
  const auto found = results.attributes.find(name);
  return found == results.attributes.end() ? "" : found->second;
}

double RunReport::number(const std::string& name) const { return number_or_nan(attribute(name)); }

fs::path run_folder(const StudyRun& run) { return fs::path(run.config.run.out) / run.name; }
fs::path log_of(const StudyRun& run) { return run_folder(run) / "train.log"; }

namespace {

RunReport examined(const Study& study, const StudyRun& run, StudyInputs& inputs) {
  RunReport report;
  const fs::path folder = run_folder(run), results = folder / "results.h5";
  const bool running = is_locked(folder);
  if (fs::exists(results)) {
    report.results = io::describe_results(results);
    report.damaged_results = !report.results.readable;
  }
  std::string foreign;
  if (report.results.readable) {
    foreign = what_is_foreign(study, run, report.results, inputs);
    report.fraction = fraction_of(run.config, report.results);
  }
  // Of a damaged file, or another run's, nothing counts.
  if (!report.results.readable || !foreign.empty()) report.results.attributes.clear();
  const std::string status = report.attribute("status");
  if (fs::exists(log_of(run))) require_file(log_of(run));
  const int failure = logged_failure(log_of(run));
  if (!foreign.empty()) {
    report.state = RunState::kForeign;
    report.detail = foreign;
  } else if (running) {
    report.state = RunState::kRunning;
    report.detail = fmt::format("{:.0f} %", 100 * report.fraction);
  } else if (status == "finished" &&
             (std::isnan(report.number("test_accuracy")) || report.attribute("digest").empty())) {
    report.state = RunState::kFailed;
    report.detail = "its results say that it finished, but hold no test accuracy or no digest";
  } else if (status == "finished") {
    report.state = RunState::kDone;
  } else if (failure != 0 || status == "failed" || status == "diverged") {
    report.state = RunState::kFailed;
    report.detail = status == "diverged" ? status : failure != 0 ? describe_exit(failure) : "";
  } else if (const auto checkpoints = io::list_checkpoints(folder); !checkpoints.empty()) {
    report.detail = "goes on from " + checkpoints.back().filename().string();
  }
  if (report.damaged_results && !running) report.detail += (report.detail.empty() ? "" : "; ") + report.results.problem;
  return report;
}

}  // namespace

RunReport look_at(const Study& study, const StudyRun& run, StudyInputs& inputs) {
  try {
    return examined(study, run, inputs);
  } catch (const std::exception& error) {  // a file where its folder was, a folder that cannot be read
    RunReport report;
    report.state = RunState::kFailed;
    report.detail = error.what();
    return report;
  }
}

void refuse_foreign(const StudyRun& run, const RunReport& report) {
  if (report.state == RunState::kForeign)
    fail_usage(
        "{} holds a run of another configuration or other data ({}): move it away, or give the study another name "
        "([study] name) or folder (--run.out)",
        run_folder(run).string(), report.detail);
}

void log_end(const StudyRun& run, int exit_code, bool stopped) {
  std::ofstream(log_of(run), std::ios::app) << (stopped ? kStoppedLine : kEnded + std::to_string(exit_code)) << "\n";
}

Study open_study(const std::string& word, const CommandLine& line) {
  std::error_code ignored;
  const bool is_folder = fs::is_directory(word, ignored);
  const fs::path file = is_folder ? fs::path(word) / "study.cfg" : fs::path(word);
  if (is_folder && !fs::exists(file))
    fail_usage("{}: holds no study: it has no study.cfg. Give a study file, or a folder that `study run` made.", word);
  if (is_folder) require_file(file);
  auto overrides = line.overrides;
  if (line.options.count("ranks") > 0) overrides.emplace_back("ranks", line.options["ranks"].as<std::string>());
  Study study = read_study(file.string(), overrides, line.files, is_folder);
  if (is_folder)
    for (StudyRun& run : study.runs) run.config.run.out = word;
  return study;
}

void claim_folder(const Study& study) {
  const fs::path folder = study.folder(), file = folder / "study.cfg";
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || access(folder.c_str(), W_OK) != 0)
    fail("{}: this study's folder cannot be written ({}): choose another run.out", folder.string(),
         error ? error.message() : "no permission");
  if (!fs::exists(file) && fs::exists(folder / "results.h5"))
    fail_usage("{} holds a run: choose another name for the study ([study] name) or folder (--run.out)",
               folder.string());
  if (!fs::exists(file)) return write_text(file, study.text);
  require_file(file);
  const Study before = read_study(file.string(), {}, {}, true);
  std::map<std::string, const StudyRun*> old_runs;
  for (const StudyRun& run : before.runs) old_runs.emplace(run.name, &run);
  std::size_t num_common = 0;
  std::string differs;
  for (const StudyRun& run : study.runs) {
    const auto found = old_runs.find(run.name);
    if (found == old_runs.end()) continue;
    ++num_common;
    const StudyRun& old_run = *found->second;
    if (old_run.identity != run.identity && differs.empty())
      differs = fmt::format("its run {} is another one ({})", run.name,
                            joined(identity_differences(old_run.config, old_run.ranks, run, study.axis_keys), ", "));
  }
  if (differs.empty() && num_common < study.runs.size() && num_common < old_runs.size())
    differs = fmt::format("its {} runs and the {} of {} have only {} in common", old_runs.size(), study.runs.size(),
                          study.source, num_common);
  if (!differs.empty())
    fail_usage("{} holds another study of this name: {}. Choose another name ([study] name) or folder (--run.out).",
               folder.string(), differs);
  if (study.runs.size() > old_runs.size()) write_text(file, study.text);
}

std::string last_lines(const fs::path& log, std::size_t most) {
  std::ifstream file(log, std::ios::binary);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    line.erase(0, line.rfind('\r') + 1);  // a renewed line's last state
    if (line.empty()) continue;
    if (!lines.empty() && (lines.back().starts_with(kEnded) || lines.back() == kStoppedLine)) lines.clear();
    lines.push_back(line);
    if (lines.size() > most) lines.pop_front();
  }
  std::string text;
  for (const std::string& line : lines) text += "    " + line + "\n";
  return text;
}

void write_text(const fs::path& path, const std::string& text) {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  // Tasks of an array job may write the same file at once.
  const fs::path temporary = fmt::format("{}.{}.{}.tmp", path.string(), host, getpid());
  try {
    std::ofstream file(temporary, std::ios::binary);
    file << text;
    file.flush();
    if (!file)
      fail("{}: cannot be written ({}): see to it that there is room and permission", path.string(),
           std::strerror(errno));
    io::sync_file(temporary);
    io::rename_file(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace switchyard
