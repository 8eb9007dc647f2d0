// The program as a user meets it: started under mpirun in a folder of its own, judged by its exit code, by what it
// prints and by the files that it leaves.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config/test_files.hpp"
#include "core/types.hpp"

namespace switchyard::test {

using Words = std::vector<std::string>;

Words operator+(Words left, const Words& right);

// What a command came to.
struct Outcome {
  int code = -1;  // 128 + signal where one ended it
  std::string out, err;

  // The rest of the only line of `out` that begins so; a test failure, and "", where there is none or more than one.
  std::string line(const std::string& beginning) const;
  std::string digest() const { return line("digest "); }
  std::string test_line() const { return line("test accuracy "); }
};

std::ostream& operator<<(std::ostream& stream, const Outcome& outcome);

// A command that runs, its output in files. What is left of it at the end of its life is killed.
class Running {
 public:
  Running(const Words& command, const std::filesystem::path& folder,
          const std::map<std::string, std::string>& set = {});
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  bool is_running();
  void send(int signal) const;
  // The processes of the program under it, by rank.
  std::vector<pid_t> ranks() const;
  void send_to_ranks(int signal) const;
  void send_to_mpirun(int signal) const;
  std::string out() const;
  // Waits for its end: a test failure, and killed, after so many seconds.
  Outcome wait(double timeout_seconds = 60);

 private:
  pid_t pid_ = -1;
  int status_ = -1;
  std::filesystem::path out_, err_;
};

// Whether a process is there that runs the program.
bool is_program(pid_t pid);

// Memory of a process that is not of files.
double megabytes_of(pid_t pid);

// Waits until condition() holds: false after a minute.
bool wait_until(const std::function<bool()>& condition);

// mpirun -n RANKS
Words mpirun(int ranks);

// A folder with small.cfg: a mixture that trains 9 steps, 3 an epoch, in well under a second. M = 24 microbatches of 2
// samples, 3 x 2^3, run on 1, 2, 4 or 8 ranks; 37 test samples make the last microbatch of an evaluation shorter.
class Program : public testing::Test {
 protected:
  Program();

  // switchyard WORDS..., under mpirun.
  Outcome run(int ranks, const Words& words, double timeout_seconds = 60);
  // switchyard train --config small.cfg WORDS...
  Outcome train(int ranks, const Words& words = {}) { return run(ranks, training(words)); }
  static Words training(const Words& words) { return Words{"train", "--config", "small.cfg"} + words; }
  std::unique_ptr<Running> start(int ranks, const Words& words) const;

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  std::filesystem::path run_folder() const { return path("runs/small"); }
  // The checkpoint that --resume would take, as step; -1 without one. Test failures for files that do not verify.
  Index newest_checkpoint() const;

  TemporaryFolder folder_;
};

// steps/step of a results file.
std::vector<Index> logged_steps(const std::filesystem::path& results);
// All columns of a results file, as bytes, but those of times and rates.
std::map<std::string, std::string> columns_without_times(const std::filesystem::path& results);
// 1, 2, ... last
std::vector<Index> steps_up_to(Index last);

}  // namespace switchyard::test
