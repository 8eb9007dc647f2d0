// switchyard study submit: the runs that are not done, as one array job of SLURM.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "app/shell_words.hpp"
#include "app/study.hpp"
#include "app/study_folder.hpp"
#include "app/text.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

bool is_on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "";
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    if (access((fs::path(rest.substr(0, end)) / program).c_str(), X_OK) == 0) return true;
    rest.erase(0, end + 1);
  }
  return false;
}

// {0, 1, 2, 5} -> "0-2,5"
std::string ranges(const std::vector<std::size_t>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(numbers[i]);
    if (last > i) text += "-" + std::to_string(numbers[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace

int study_submit(const Study& study, const CommandLine& line, const std::string& file) {
  if (!is_on_path("sbatch"))
    fail(
        "submit: there is no sbatch on the PATH: go to a login node of a cluster with SLURM, or run the study here: "
        "switchyard study run {}",
        file);
  const std::string script = line.options.count("script") > 0 ? line.options["script"].as<std::string>()
                                                              : SWITCHYARD_SOURCE "/slurm/study.sbatch";
  if (!fs::exists(script)) fail_usage("submit: {}: there is no such job script: name one with --script", script);
  claim_folder(study);
  StudyInputs inputs(study.folder());
  std::vector<std::size_t> indices;
  int ranks = 1;
  Index threads = 1;
  for (std::size_t i = 0; i < study.runs.size(); ++i) {
    const RunReport report = look_at(study, study.runs[i], inputs);
    refuse_foreign(study.runs[i], report);
    if (report.state == RunState::kDone || report.state == RunState::kRunning) continue;
    indices.push_back(i);
    ranks = std::max(ranks, study.runs[i].ranks);
    threads = std::max(threads, study.runs[i].config.parallel.threads);
  }
  if (indices.empty()) {
    fmt::print("{}: all runs are done or running: nothing to submit\n", study.name);
    return 0;
  }
  std::vector<std::string> words = {"sbatch",
                                    "--array=" + ranges(indices),
                                    fmt::format("--ntasks={}", ranks),
                                    fmt::format("--cpus-per-task={}", threads),
                                    script,
                                    file};
  for (const std::string& config : line.files) words.insert(words.end(), {"--config", config});
  for (const auto& [key, value] : line.overrides) words.insert(words.end(), {"--" + key, value});
  if (line.options.count("ranks") > 0) words.insert(words.end(), {"--ranks", line.options["ranks"].as<std::string>()});
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  // The script runs as a copy in another place, on other machines: it finds these by the environment.
  setenv("SWITCHYARD_ROOT", SWITCHYARD_SOURCE, 0);
  setenv("SWITCHYARD", fs::read_symlink("/proc/self/exe").c_str(), 0);
  fmt::print("{}\n", shell_line(words));
  std::fflush(stdout);
  execvp("sbatch", arguments.data());
  fail("sbatch: cannot be started ({})", std::strerror(errno));
}

}  // namespace switchyard
