// The parts of `switchyard study`, a file each. Results are exit codes.
#pragma once

#include <string>
#include <vector>

#include "config/command_line.hpp"
#include "config/study.hpp"

namespace switchyard {

int study_plan(const Study& study, const CommandLine& line);
int study_run(const Study& study, const CommandLine& line);
int study_status(const Study& study);
int study_table(const Study& study, const CommandLine& line);
int study_collect(const Study& study, const CommandLine& line);
int study_submit(const Study& study, const CommandLine& line, const std::string& file);

// `switchyard train` of the configuration file, under the launcher of --launcher.
std::vector<std::string> training_words(const CommandLine& line, int ranks, const std::string& config,
                                        const std::vector<std::string>& more = {});
// Cores that this process may use.
int num_cores();
int cores_of(const StudyRun& run);

// The signals of app/stop_signals.hpp from here on count instead of ending the process.
void catch_study_signals();
int num_signals();

}  // namespace switchyard
