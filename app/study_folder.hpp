// A study's folder run.out/NAME/: study.cfg, and for each run a folder as `train` makes it, with its configuration
// (run.cfg) and what it printed (train.log) beside.
#pragma once

#include <filesystem>
#include <string>

#include "app/study_inputs.hpp"
#include "config/command_line.hpp"
#include "config/study.hpp"
#include "io/results.hpp"

namespace switchyard {

enum class RunState { kDone, kRunning, kFailed, kPending, kForeign };

const char* name_of(RunState state);

struct RunReport {
  RunState state = RunState::kPending;
  std::string detail;            // "after step 117", "exit code 1", what is foreign or damaged
  bool damaged_results = false;  // cannot be read
  io::ResultsSummary results;
  double fraction = 0;  // of its training that is done, 0 to 1

  // An attribute of the results; empty where it is not there.
  std::string attribute(const std::string& name) const;
  // One that is a number; NaN where it is none.
  double number(const std::string& name) const;
};

std::filesystem::path run_folder(const StudyRun& run);
std::filesystem::path log_of(const StudyRun& run);

// What is on the disk of a run, whoever made it.
RunReport look_at(const Study& study, const StudyRun& run, StudyInputs& inputs);

// Fails with kUsage where the run's folder holds a run of another configuration, or of other inputs.
void refuse_foreign(const StudyRun& run, const RunReport& report);

// As the last line of the log, for look_at().
void log_end(const StudyRun& run, int exit_code, bool stopped);

// `word` is a study file or a study's folder; the command line's keys and --config count for both. The runs of a
// folder that was moved lie where it is now.
Study open_study(const std::string& word, const CommandLine& line);

// Makes the folder the study's: creates it and writes study.cfg. A study that is there already may gain runs or be
// asked for some of its runs; fails with kUsage where it is another one, with nothing changed.
void claim_folder(const Study& study);

// Of a log's last try, indented.
std::string last_lines(const std::filesystem::path& log, std::size_t most);

// Replaces a file as a whole.
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace switchyard
