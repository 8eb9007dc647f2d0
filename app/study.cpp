// switchyard study: what to do with which study.
#include "app/study.hpp"

#include <sched.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>

#include "app/commands.hpp"
#include "app/shell_words.hpp"
#include "app/stop_signals.hpp"
#include "app/study_folder.hpp"
#include "app/text.hpp"
#include "app/text_table.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;
namespace fs = std::filesystem;

constexpr const char* kHelp =
    "switchyard study plan FILE     its runs: ranks, steps, cost, memory, and time by a few measured steps\n"
    "switchyard study run FILE      runs them here, under mpirun; what is done is skipped, what was begun goes on\n"
    "switchyard study submit FILE   hands them to SLURM as one array job\n"
    "switchyard study list FILE     a line for each run: index, name, ranks\n"
    "switchyard study status FILE   done, running, failed, pending, or foreign: made with other keys, data or "
    "train.start\n"
    "switchyard study table FILE    mean and 95 % confidence interval over seeds; of M_A and G_A the best, too\n"
    "switchyard study collect FILE --output F.h5   one HDF5 file with links to all runs and a table of outcomes\n\n"
    "FILE is a configuration with a section [study], or the folder of a study that was begun, run.out/NAME/. --KEY\n"
    "VALUE sets a key for all runs, whatever `set` lines say; of a key that has an axis it chooses among the axis's\n"
    "values: --run.seed 1,3..5\n\n"
    "  --ranks N            of every run; where `ranks` has an axis, one of its values\n"
    "  --jobs N             (run) so many runs at once; default: as many as cores allow (ranks x threads). Runs that\n"
    "                       share a machine time each other: --jobs 1 for timings\n"
    "  --only I             (run) the run of this index or name alone\n"
    "  --launcher \"WORDS\"   starts a run's ranks, {ranks} replaced; words that hold spaces in quotes, as a shell "
    "has\n"
    "                       them. Default: scripts/mpirun.sh {ranks} of the folder that this program was built in, or\n"
    "                       mpirun -n {ranks} where that is gone\n"
    "  --no-measure         (plan) estimate nothing by running steps\n"
    "  --markdown           (table)\n"
    "  --output F.h5        (collect); --overwrite replaces it\n"
    "  --script FILE        (submit) default: slurm/study.sbatch of the folder that this program was built in\n\n"
    "A study file:\n\n"
    "  [study]\n"
    "  name = number-of-experts             default: the file's name\n"
    "  ranks = 2\n"
    "  axis = ffn.experts: 1, 4, 8          a run for each value; `ranks` may have an axis too\n"
    "  axis = run.seed: 1..5                whole numbers\n"
    "  axis = train.batch, train.lr: 128 & 1e-3, 256 & 2e-3       keys that move together\n"
    "  set = ffn.kind: dense if ffn.experts: 1                    where the condition holds, the key takes the value\n"
    "  exclude = ffn.experts: 8; train.batch: 128, 256            runs for which all hold are left out\n\n"
    "  [ffn]\n"
    "  kind = moe                           and so on: the configuration of all runs\n\n"
    "SIGTERM, SIGINT, SIGHUP (not under nohup), SIGUSR1, SIGUSR2 or SIGXCPU to `study run` make its runs write a\n"
    "checkpoint; it exits with code 75, and the same command goes on. A second signal ends them at once.\n";

volatile std::sig_atomic_t signal_count = 0;

po::options_description own_options() {
  po::options_description own;
  own.add_options()("ranks", po::value<std::string>(), "")("jobs", po::value<std::string>(), "")(
      "only", po::value<std::string>(), "")("launcher", po::value<std::string>(), "")("no-measure", "")("markdown", "")(
      "output", po::value<std::string>(), "")("overwrite", "")("script", po::value<std::string>(), "");
  return own;
}

// {ranks} left as it is.
std::vector<std::string> launcher_words(const CommandLine& line) {
  if (line.options.count("launcher") > 0)
    return split_shell_words("--launcher", line.options["launcher"].as<std::string>());
  const std::string script = SWITCHYARD_SOURCE "/scripts/mpirun.sh";
  if (fs::exists(script)) return {script, "{ranks}"};
  return {"mpirun", "-n", "{ranks}"};
}

int study_list(const Study& study) {
  for (std::size_t i = 0; i < study.runs.size(); ++i)
    fmt::print("{} {} {}\n", i, study.runs[i].name, study.runs[i].ranks);
  return 0;
}

}  // namespace

std::string study_help(const Words&) { return kHelp; }

int study_command(const Words& arguments) {
  if (std::getenv("OMPI_COMM_WORLD_SIZE")) fail_usage("study starts mpirun itself for each run: run it without mpirun");
  const std::vector<std::string> names = {"plan", "run", "submit", "list", "status", "table", "collect"};
  const CommandLine line = parse_command_line(arguments, own_options(), 2);
  if (arguments.empty()) {
    fmt::print(stderr, "{}", kHelp);
    return static_cast<int>(ExitCode::kUsage);
  }
  if (line.positional.empty() || std::find(names.begin(), names.end(), line.positional[0]) == names.end())
    fail_usage("study: found {}: there are plan, run, submit, list, status, table and collect",
               line.positional.empty() ? "none of its commands" : fmt::format("\"{}\"", line.positional[0]));
  if (line.positional.size() < 2) fail_usage("study {}: the study's file or folder is missing", line.positional[0]);
  launcher_words(line);  // a mistake in them ends this before anything begins
  const std::string command = line.positional[0], file = line.positional[1];
  const Study study = open_study(file, line);
  if (command == "plan") return study_plan(study, line);
  if (command == "run") return study_run(study, line);
  if (command == "submit") return study_submit(study, line, file);
  if (command == "list") return study_list(study);
  if (command == "status") return study_status(study);
  if (command == "table") return study_table(study, line);
  return study_collect(study, line);
}

int study_status(const Study& study) {
  TextTable table{{"run", "ranks", "state", ""}};
  std::map<RunState, int> count;
  StudyInputs inputs(study.folder());
  for (const StudyRun& run : study.runs) {
    const RunReport report = look_at(study, run, inputs);
    ++count[report.state];
    table.add({run.name, std::to_string(run.ranks), name_of(report.state), report.detail});
  }
  table.left_align(2).left_align(3).print();
  std::string sum;
  for (const auto& [state, number] : count)
    sum += fmt::format("{}{} {}", sum.empty() ? "" : ", ", number, name_of(state));
  fmt::print("{}: {} in {}: {}\n", study.name, plural(static_cast<Index>(study.runs.size()), "run"), study.folder(),
             sum);
  return 0;
}

std::vector<std::string> training_words(const CommandLine& line, int ranks, const std::string& config,
                                        const std::vector<std::string>& more) {
  constexpr std::string_view kRanks = "{ranks}";
  std::vector<std::string> words = launcher_words(line);
  for (std::string& word : words)
    if (const std::size_t at = word.find(kRanks); at != std::string::npos)
      word.replace(at, kRanks.size(), std::to_string(ranks));
  words.insert(words.end(), {fs::read_symlink("/proc/self/exe").string(), "train", "--config", config});
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

int num_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

int cores_of(const StudyRun& run) { return run.ranks * static_cast<int>(run.config.parallel.threads); }

void catch_study_signals() {
  set_stop_handler([](int) { signal_count = signal_count + 1; });
}

int num_signals() { return signal_count; }

}  // namespace switchyard
