// kill -9, which nothing can catch, of all ranks, of one or of mpirun, at any moment: what was saved still verifies,
// and the run goes on from there, on another layout, to the result of a run that was never killed.
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <random>
#include <thread>

#include "io/checkpoint.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

const Words kLong = {"--run.epochs", "40", "--run.eval_every", "20"};  // 120 steps
constexpr Index kSteps = 120;

bool is_saving(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".tmp") return true;
  return false;
}

Index newest_by_name(const fs::path& folder) {
  const auto checkpoints = io::list_checkpoints(folder);
  return checkpoints.empty() ? -1 : std::stoll(checkpoints.back().stem().string().substr(11));
}

struct Model {
  Words settings;
  int experts;  // or leaves of its trees; 1: nothing that ranks could share out
};
const std::vector<Model> kModels = {
    {{"--ffn.router", "switch"}, 4},
    {{"--ffn.router", "noisy_top_k", "--ffn.capacity_train", "1"}, 4},
    {{"--ffn.router", "loss_free", "--compute.dtype", "bf16"}, 4},
    {{"--ffn.router", "random", "--ffn.granularity", "balanced", "--ffn.inference", "average"}, 4},
    {{"--ffn.kind", "dense", "--train.optimizer", "adamw", "--train.clip", "0.5"}, 1},
    {{"--ffn.kind", "fff", "--ffn.depth", "2", "--ffn.leaf", "5"}, 4},
};

// Trainings that are killed at random and go on on another layout, until so many kills are done: the environment's
// SWITCHYARD_KILLS, and SWITCHYARD_KILL_SEED to have the same choices again (tests/kill/campaign.sh).
class KillCampaign : public Program {
 protected:
  void TearDown() override {
    std::cout << num_kills_ << " kills: " << num_of_[0] << " of all ranks, " << num_of_[1] << " of one rank, "
              << num_of_[2] << " of mpirun; " << num_while_saving_ << " left a half-written checkpoint\n";
    if (!HasFailure()) return;
    folder_.keep();
    std::cout << "SWITCHYARD_KILL_SEED=" << seed_ << " makes these choices again; the files stay in " << folder_.path()
              << "\n";
  }

  static std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const value = std::getenv(name);
    return value && *value ? std::stoull(value) : otherwise;
  }
  int below(int end) { return static_cast<int>(random_() % static_cast<std::uint64_t>(end)); }
  template <typename T>
  T one_of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(below(static_cast<int>(values.size())))];
  }

  // On some layout, whose ranks are told.
  std::unique_ptr<Running> start_somewhere(const Model& model, const Words& words, int& ranks);
  // At any moment from their start on, or in the middle of a save: 0, all ranks, 1, one of them, or 2, mpirun.
  void kill_somehow(Running& running, int ranks, int victim);
  // False where the training ended before.
  bool start_and_kill(const Model& model, const Words& words);
  void train_through_kills(const std::string& name, int most_kills);

  const std::uint64_t seed_ = from_environment("SWITCHYARD_KILL_SEED", std::random_device()());
  const int num_wanted_ = static_cast<int>(from_environment("SWITCHYARD_KILLS", 10));
  std::mt19937_64 random_{seed_};
  int num_kills_ = 0, num_of_[3] = {}, num_while_saving_ = 0;
  double seconds_ = 0;  // of a training that nobody kills
};

std::unique_ptr<Running> KillCampaign::start_somewhere(const Model& model, const Words& words, int& ranks) {
  ranks = one_of<int>({1, 2, 4});
  const int expert_ranks = one_of<int>({1, std::min({ranks, model.experts, 2}), std::min(ranks, model.experts)});
  return start(ranks, training(words + Words{"--parallel.experts", std::to_string(expert_ranks), "--parallel.threads",
                                             std::to_string(1 + below(2)), "--parallel.overlap",
                                             one_of<const char*>({"auto", "on", "off"}), "--checkpoint.every",
                                             std::to_string(1 + below(5))}));
}

void KillCampaign::kill_somehow(Running& running, int ranks, int victim) {
  // As many random numbers for every kill, whatever becomes of it.
  const int microseconds = below(static_cast<int>(1e6 * seconds_)), rank = below(ranks);
  const bool while_saving = below(2) == 0;
  ASSERT_TRUE(wait_until([&] { return !running.is_running() || std::ssize(running.ranks()) == ranks; }));
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
  if (while_saving) wait_until([&] { return !running.is_running() || is_saving(run_folder()); });
  const std::vector<pid_t> pids = running.ranks();
  if (pids.empty()) return;
  if (victim == 0) running.send_to_ranks(SIGKILL);
  if (victim == 1) kill(pids[static_cast<std::size_t>(rank) % pids.size()], SIGKILL);
  if (victim == 2) running.send_to_mpirun(SIGKILL);
  // Those that were spared end by themselves.
  EXPECT_TRUE(wait_until([&] {
    return std::none_of(pids.begin(), pids.end(), [](pid_t pid) { return is_program(pid); });
  })) << "ranks go on without the one that was killed";
}

bool KillCampaign::start_and_kill(const Model& model, const Words& words) {
  const Index last = newest_by_name(run_folder());
  int ranks = 0;
  const auto running = start_somewhere(model, words, ranks);
  const int victim = below(3);
  kill_somehow(*running, ranks, victim);
  const Outcome outcome = running->wait();
  if (outcome.code == 0) return false;
  ++num_kills_;
  ++num_of_[victim];
  num_while_saving_ += is_saving(run_folder());
  EXPECT_GE(newest_checkpoint(), last) << "a checkpoint is lost\n" << outcome;
  return true;
}

void KillCampaign::train_through_kills(const std::string& name, int most_kills) {
  const Model& model = one_of(kModels);
  const Words words = kLong + model.settings;
  const auto begin = std::chrono::steady_clock::now();
  const Outcome whole = train(1, words + Words{"--run.out", "whole", "--run.name", name});
  ASSERT_EQ(whole.code, 0) << whole;
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  fs::remove_all(run_folder());
  for (int kills = 0; kills < most_kills && start_and_kill(model, words + Words{"--resume"}); ++kills) {
  }
  int ranks = 0;
  const Outcome resumed = start_somewhere(model, words + Words{"--resume"}, ranks)->wait();
  ASSERT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(resumed.test_line(), whole.test_line());
  EXPECT_FALSE(is_saving(run_folder())) << "files that the killed left are gone";
  const auto columns = columns_without_times(run_folder() / "results.h5");
  const auto whole_columns = columns_without_times(path("whole") / name / "results.h5");
  ASSERT_TRUE(whole_columns.contains("steps/loss"));
  EXPECT_EQ(columns.size(), whole_columns.size());
  for (const auto& [column, values] : whole_columns)
    EXPECT_TRUE(columns.contains(column) && columns.at(column) == values) << column << " differs";
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(kSteps)) << "each step once";
}

TEST_F(KillCampaign, EndsAsIfNobodyHadKilled) {
  for (int training = 0; num_kills_ < num_wanted_ && !HasFailure(); ++training) {
    SCOPED_TRACE(fmt::format("training {}", training));
    train_through_kills(std::to_string(training), std::min(1 + below(8), num_wanted_ - num_kills_));
  }
  if (num_kills_ >= 50) {
    EXPECT_GT(num_while_saving_, 0) << "no kill came in the middle of a save: this tries less than it says";
  }
}

TEST_F(Program, KilledBeforeItsFirstCheckpoint) {
  const Outcome whole = train(1, kLong + Words{"--run.out", "whole"});
  const auto running = start(2, training(kLong + Words{"--checkpoint.every", "1000"}));
  ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; }));
  running->send_to_ranks(SIGKILL);
  EXPECT_NE(running->wait().code, 0);
  ASSERT_EQ(newest_checkpoint(), -1);

  const Outcome resumed = train(2, kLong + Words{"--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_NE(resumed.out.find("no checkpoint in runs/small: starting from the beginning"), std::string::npos) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(kSteps));
}

// Its rows end where it went back to, and so do its checkpoints.
TEST_F(Program, KilledAfterItWentBackToAnEarlierCheckpoint) {
  const Words keep_all = kLong + Words{"--checkpoint.keep", "100"};
  const Outcome whole = train(1, keep_all + Words{"--checkpoint.every", "40"});
  ASSERT_EQ(whole.code, 0) << whole;
  const std::string first = io::checkpoint_path(run_folder(), 40).string();
  const auto running = start(2, training(keep_all + Words{"--resume", first, "--checkpoint.every", "1000"}));
  ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; }));
  running->send_to_ranks(SIGKILL);
  EXPECT_NE(running->wait().code, 0);
  EXPECT_EQ(newest_checkpoint(), 40);

  const Outcome resumed = train(2, keep_all + Words{"--resume"});
  EXPECT_EQ(resumed.digest(), whole.digest()) << resumed;
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(kSteps));
}

// One rank alone: the others do not wait for it for ever.
TEST_F(Program, OneRankKilled) {
  const auto running = start(4, training(kLong + Words{"--run.epochs", "100000"}));
  ASSERT_TRUE(wait_until([&] { return newest_by_name(run_folder()) > 0; }));
  const auto ranks = running->ranks();
  ASSERT_EQ(ranks.size(), 4u);
  kill(ranks[2], SIGKILL);
  EXPECT_NE(running->wait(30).code, 0);
  EXPECT_GT(newest_checkpoint(), 0);
}

}  // namespace
}  // namespace switchyard::test
