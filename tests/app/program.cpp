#include "program.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <hdf5.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <iterator>
#include <memory>
#include <numeric>
#include <sstream>
#include <thread>

#include "io/checkpoint.hpp"
#include "io/h5.hpp"
#include "io/schema.hpp"

namespace switchyard::test {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSmall = R"(
[run]
name = small
seed = 3
epochs = 3
[data]
kind = synthetic
synthetic_samples = 148
synthetic_size = 12
synthetic_channels = 3
crop_padding = 2
flip = true
[model]
layers = 2
width = 24
heads = 3
patch = 4
[ffn]
kind = moe
hidden = 20
experts = 4
router = switch
[train]
batch = 48
microbatch = 2
lr = 0.01
dropout = 0.1
)";

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void pause_briefly() { std::this_thread::sleep_for(std::chrono::microseconds(500)); }

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A file of /proc/PID; empty once the process is gone, even where it goes between opening and reading (ESRCH, which
// a stream's iterator would throw).
std::string process_file(pid_t pid, const std::string& name) {
  std::ostringstream text;
  if (std::ifstream file(fmt::format("/proc/{}/{}", pid, name)); file) text << file.rdbuf();
  return text.str();
}

// Every living process with its parent.
std::map<pid_t, pid_t> parents() {
  std::map<pid_t, pid_t> result;
  DIR* const proc = opendir("/proc");
  while (const dirent* entry = readdir(proc)) {
    const int pid = std::atoi(entry->d_name);
    if (pid <= 0) continue;
    // PID (NAME) STATE PARENT ...
    const std::string stat = process_file(pid, "stat");
    const auto name_end = stat.rfind(')');
    if (name_end == std::string::npos || name_end + 4 >= stat.size() || stat[name_end + 2] == 'Z') continue;
    result[pid] = std::atoi(stat.c_str() + name_end + 4);
  }
  closedir(proc);
  return result;
}

std::vector<pid_t> descendants(pid_t ancestor) {
  const auto parent_of = parents();
  std::vector<pid_t> found{ancestor};
  for (std::size_t i = 0; i < found.size(); ++i)
    for (const auto& [pid, parent] : parent_of)
      if (parent == found[i]) found.push_back(pid);
  found.erase(found.begin());
  return found;
}

int rank_of(pid_t pid) {
  const std::string environment = '\0' + process_file(pid, "environ");
  const std::string name = std::string(1, '\0') + "OMPI_COMM_WORLD_RANK=";
  const auto at = environment.find(name);
  return at == std::string::npos ? -1 : std::atoi(environment.c_str() + at + name.size());
}

fs::path executable_of(pid_t pid) {
  std::error_code error;
  return fs::read_symlink(fmt::format("/proc/{}/exe", pid), error);
}

int open_for_output(const fs::path& path) { return open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644); }

}  // namespace

Words operator+(Words left, const Words& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

std::string Outcome::line(const std::string& beginning) const {
  std::istringstream lines(out);
  std::vector<std::string> found;
  for (std::string each; std::getline(lines, each);)
    if (each.starts_with(beginning)) found.push_back(each.substr(beginning.size()));
  if (found.size() == 1) return found[0];
  ADD_FAILURE() << found.size() << " lines begin with \"" << beginning << "\"\n" << *this;
  return "";
}

std::ostream& operator<<(std::ostream& stream, const Outcome& outcome) {
  return stream << "exit code " << outcome.code << "\nstdout:\n" << outcome.out << "\nstderr:\n" << outcome.err;
}

Running::Running(const Words& command, const fs::path& folder, const std::map<std::string, std::string>& set) {
  static std::atomic<int> count = 0;
  const int number = count++;
  out_ = folder / fmt::format("{}.out", number);
  err_ = folder / fmt::format("{}.err", number);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);

  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error("no process for " + command[0]);
  if (pid_ > 0) return;
  setsid();
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGPIPE}) std::signal(signal, SIG_DFL);
  for (const auto& [name, value] : set) setenv(name.c_str(), value.c_str(), 1);
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (chdir(folder.c_str()) != 0 || dup2(in, 0) < 0 || dup2(open_for_output(out_), 1) < 0 ||
      dup2(open_for_output(err_), 2) < 0)
    _exit(127);
  execvp(words[0], words.data());
  _exit(127);
}

Running::~Running() {
  if (!is_running()) return;
  for (pid_t pid : descendants(pid_)) kill(pid, SIGKILL);
  kill(pid_, SIGKILL);
  waitpid(pid_, &status_, 0);
}

bool Running::is_running() {
  if (pid_ < 0) return false;
  if (waitpid(pid_, &status_, WNOHANG) == 0) return true;
  pid_ = -1;
  return false;
}

void Running::send(int signal) const {
  if (pid_ > 0) kill(pid_, signal);  // to -1 it would go to every process of this user
}

std::vector<pid_t> Running::ranks() const {
  std::vector<pid_t> found;
  for (pid_t pid : descendants(pid_))
    if (is_program(pid)) found.push_back(pid);
  std::sort(found.begin(), found.end(), [](pid_t a, pid_t b) { return rank_of(a) < rank_of(b); });
  return found;
}

void Running::send_to_ranks(int signal) const {
  for (pid_t pid : ranks()) kill(pid, signal);
}

void Running::send_to_mpirun(int signal) const {
  for (pid_t pid : descendants(pid_))
    if (const std::string name = executable_of(pid).filename(); name == "orterun" || name == "mpirun")
      kill(pid, signal);
}

std::string Running::out() const { return bytes_of(out_); }

Outcome Running::wait(double timeout_seconds) {
  const double end = now() + timeout_seconds;
  while (is_running() && now() < end) pause_briefly();
  const bool hangs = is_running();
  if (hangs) {
    for (pid_t pid : descendants(pid_)) kill(pid, SIGKILL);
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
    pid_ = -1;
  }
  Outcome outcome;
  outcome.code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  outcome.out = bytes_of(out_);
  outcome.err = bytes_of(err_);
  if (hangs) ADD_FAILURE() << "still running after " << timeout_seconds << " s\n" << outcome;
  return outcome;
}

bool is_program(pid_t pid) { return executable_of(pid) == fs::path(SWITCHYARD_PROGRAM); }

double megabytes_of(pid_t pid) {
  std::istringstream status(process_file(pid, "status"));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return 1e-3 * std::stod(line.substr(8));  // kB
  return 0;
}

bool wait_until(const std::function<bool()>& condition) {
  for (const double end = now() + 60; now() < end; pause_briefly())
    if (condition()) return true;
  return false;
}

Words mpirun(int ranks) { return {SWITCHYARD_MPIRUN, std::to_string(ranks)}; }

Program::Program() { folder_.write("small.cfg", kSmall); }

std::unique_ptr<Running> Program::start(int ranks, const Words& words) const {
  return std::make_unique<Running>(mpirun(ranks) + Words{SWITCHYARD_PROGRAM} + words, folder_.path());
}

Outcome Program::run(int ranks, const Words& words, double timeout_seconds) {
  return start(ranks, words)->wait(timeout_seconds);
}

Index Program::newest_checkpoint() const {
  std::vector<std::string> warnings;
  const auto newest = io::newest_valid_checkpoint(run_folder(), warnings);
  for (const std::string& warning : warnings) ADD_FAILURE() << warning;
  return newest ? io::describe_checkpoint(*newest).info.step : -1;
}

std::vector<Index> logged_steps(const fs::path& results) {
  const hid_t file = H5Fopen(results.c_str(), H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, H5P_DEFAULT);
  const hid_t dataset = H5Dopen(file, "steps/step", H5P_DEFAULT);
  const hid_t space = H5Dget_space(dataset);
  std::vector<std::int64_t> steps(static_cast<std::size_t>(std::max<hssize_t>(0, H5Sget_simple_extent_npoints(space))));
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, steps.data()), 0) << results;
  H5Sclose(space);
  H5Dclose(dataset);
  H5Fclose(file);
  return {steps.begin(), steps.end()};
}

std::map<std::string, std::string> columns_without_times(const fs::path& results) {
  std::map<std::string, std::string> columns;
  const auto add = [](hid_t top, const char* name, const H5O_info_t* info, void* out) -> herr_t {
    if (info->type != H5O_TYPE_DATASET) return 0;
    const h5::Handle dataset(H5Dopen(top, name, H5P_DEFAULT), H5Dclose);
    const auto units = h5::read_text(dataset, io::schema::kUnits).value_or("");
    if (units.empty() || units == "s" || units == "1/s") return 0;
    const h5::Handle type(H5Dget_type(dataset), H5Tclose), space(H5Dget_space(dataset), H5Sclose);
    std::string values(H5Tget_size(type) * static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)), '\0');
    EXPECT_GE(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
    static_cast<std::map<std::string, std::string>*>(out)->emplace(name, values);
    return 0;
  };
  const h5::Handle file(H5Fopen(results.c_str(), H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, H5P_DEFAULT), H5Fclose);
  EXPECT_GE(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, add, &columns, H5O_INFO_BASIC), 0) << results;
  return columns;
}

std::vector<Index> steps_up_to(Index last) {
  std::vector<Index> steps(static_cast<std::size_t>(last));
  std::iota(steps.begin(), steps.end(), Index{1});
  return steps;
}

}  // namespace switchyard::test
