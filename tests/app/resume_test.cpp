// What --resume takes, what it passes over, and what it refuses.
#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <map>
#include <span>

#include "core/ranks.hpp"
#include "data_files.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

constexpr int kFailure = 1, kUsage = 2;

// All that lies in a folder, by name.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> bytes;
  for (const fs::directory_entry& each : fs::directory_iterator(folder)) {
    std::ifstream file(each.path(), std::ios::binary);
    bytes[each.path().filename()] = {std::istreambuf_iterator<char>(file), {}};
  }
  bytes.erase("run.lock");
  return bytes;
}

class Resume : public Program {
 protected:
  // 9 steps; checkpoints after each, all kept.
  void SetUp() override {
    first_ = train(2, kKeepAll);
    ASSERT_EQ(first_.code, 0) << first_;
  }

  fs::path checkpoint(Index step) const { return io::checkpoint_path(run_folder(), step); }
  void flip_a_bit(const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
    stream.seekg(middle);
    const char byte = static_cast<char>(stream.get() ^ 16);
    stream.seekp(middle);
    stream.put(byte);
  }

  const Words kKeepAll = {"--checkpoint.every", "1", "--checkpoint.keep", "100"};
  Outcome first_;
};

class OneRank : public Ranks {
 public:
  OneRank() : Ranks(0, {0}) {}
  void exchange(std::string_view, std::span<const Transfer> transfers) override {
    for (const Transfer& each : transfers)
      std::memcpy(each.receive, each.send, static_cast<std::size_t>(each.send_bytes));
  }
};

// Copies a checkpoint, with something else in its description.
void copy_checkpoint(const fs::path& from, const fs::path& to, const std::function<void(io::CheckpointInfo&)>& change) {
  std::vector<std::vector<float>> arrays;
  std::vector<io::ArraySlice> slices;
  for (const io::ArraySummary& array : io::describe_checkpoint(from).arrays) {
    Index size = 1;
    for (const Index extent : array.shape) size *= extent;
    arrays.emplace_back(static_cast<std::size_t>(size));
    slices.push_back({array.name, array.shape, array.per_expert, 0, array.shape[0], arrays.back().data()});
  }
  OneRank rank;
  io::CheckpointInfo info = io::load_checkpoint(rank, from, slices);
  change(info);
  io::save_checkpoint(rank, to, info, slices);
}

// As a machine with other attributes would have saved it, there with compute.device = `device`.
void copy_from_machine(const fs::path& from, const fs::path& to, const std::map<std::string, std::string>& machine,
                       const std::string& device = "cpu") {
  copy_checkpoint(from, to, [&](io::CheckpointInfo& info) {
    for (const auto& [name, value] : machine) info.attributes[name] = value;
    const std::string key = "device = ";
    info.config.replace(info.config.find(key + "cpu") + key.size(), 3, device);
  });
}

// As it was saved before there was the key.
void copy_without_key(const fs::path& from, const fs::path& to, const std::string& key) {
  copy_checkpoint(from, to, [&](io::CheckpointInfo& info) {
    const std::size_t first = info.config.find("\n" + key + " = ") + 1;
    info.config.erase(first, info.config.find('\n', first) + 1 - first);
  });
}

TEST_F(Resume, WarnsWhereTheMachineIsAnother) {
  const std::map<std::string, std::string> mine = io::read_checkpoint_info(checkpoint(6)).attributes;
  copy_from_machine(checkpoint(6), path("same.h5"), {});
  copy_from_machine(checkpoint(6), path("other.h5"), {{"libraries", "kernels for abacus"}, {"device", "abacus"}});
  const Outcome same = train(2, {"--run.name", "same", "--resume", path("same.h5").string()});
  EXPECT_EQ(same.code, 0) << same;
  EXPECT_EQ(same.err.find("warning"), std::string::npos) << same;
  const Outcome other = train(2, {"--run.name", "other", "--resume", path("other.h5").string()});
  EXPECT_EQ(other.code, 0) << other;
  EXPECT_EQ(other.digest(), first_.digest());
  for (const std::string& part :
       {std::string("switchyard: warning: "), path("other.h5").string(), std::string("last bits"),
        "libraries: kernels for abacus -> " + mine.at("libraries"), std::string("device: abacus -> CPU")})
    EXPECT_NE(other.err.find(part), std::string::npos) << "missing: " << part << "\n" << other;
}

TEST_F(Resume, GoesOnOnACpuFromWhereAGpuWas) {
  copy_from_machine(checkpoint(6), path("gpu.h5"), {{"device", "abacus, sm_90"}}, "cuda");
  const Outcome outcome = train(2, {"--run.name", "gpu", "--resume", path("gpu.h5").string()});
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.digest(), first_.digest());
  EXPECT_NE(outcome.err.find("device: abacus, sm_90 -> CPU"), std::string::npos) << outcome;
}

// Mid-epoch included: an epoch has 3 steps.
TEST_F(Resume, FromEachStepOnOtherLayouts) {
  const Words layouts[] = {{"1", "1"}, {"2", "2"}, {"4", "4"}, {"8", "2"}};
  for (Index step = 1; step <= 8; ++step) {
    SCOPED_TRACE(fmt::format("from step {}", step));
    const Words& layout = layouts[step % 4];
    const Outcome resumed = train(
        std::stoi(layout[0]), kKeepAll + Words{"--resume", checkpoint(step).string(), "--parallel.experts", layout[1]});
    ASSERT_EQ(resumed.code, 0) << resumed;
    EXPECT_EQ(resumed.line("resuming "), fmt::format("{} after step {}", checkpoint(step).string(), step));
    EXPECT_EQ(resumed.digest(), first_.digest());
    EXPECT_EQ(resumed.test_line(), first_.test_line());
    EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
  }
}

TEST_F(Resume, AFinishedRunPrintsItsResultAgain) {
  const Outcome again = train(4, {"--resume"});
  EXPECT_EQ(again.code, 0) << again;
  EXPECT_EQ(again.digest(), first_.digest());
  EXPECT_EQ(again.test_line(), first_.test_line());
  EXPECT_EQ(again.err.find("holds no rows"), std::string::npos) << again;
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
}

TEST_F(Resume, PassesOverDamagedCheckpoints) {
  flip_a_bit(checkpoint(9));
  fs::resize_file(checkpoint(8), fs::file_size(checkpoint(8)) / 2);
  std::ofstream(checkpoint(7), std::ios::trunc).close();
  const Outcome resumed = train(2, Words{"--resume"} + kKeepAll);
  EXPECT_EQ(resumed.code, 0) << resumed;
  for (const char* name : {"checkpoint-00000009.h5", "checkpoint-00000008.h5", "checkpoint-00000007.h5"}) {
    const auto at = resumed.err.find(name);
    ASSERT_NE(at, std::string::npos) << "no warning of " << name << "\n" << resumed;
    const auto line = resumed.err.rfind('\n', at) + 1;
    EXPECT_EQ(resumed.err.substr(line, 20), "switchyard: warning:") << resumed;
  }
  EXPECT_EQ(resumed.line("resuming "), "runs/small/checkpoint-00000006.h5 after step 6");
  EXPECT_EQ(resumed.digest(), first_.digest());
  EXPECT_EQ(newest_checkpoint(), 9);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
}

// Not even those that fail to verify are lost, nor the results: what could have been repaired still can.
TEST_F(Resume, RefusesToBeginAnewWhereNoCheckpointVerifies) {
  for (Index step = 1; step <= 9; ++step) flip_a_bit(checkpoint(step));
  const Outcome refused = train(2, {"--resume"});
  EXPECT_EQ(refused.code, kFailure) << refused;
  for (const char* part :
       {"runs/small", "none verifies", "checkpoint-00000001.h5", "checkpoint-00000009.h5", "remove", "--overwrite"})
    EXPECT_NE(refused.err.find(part), std::string::npos) << "missing: " << part << "\n" << refused;
  EXPECT_EQ(io::list_checkpoints(run_folder()).size(), 9u);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
  EXPECT_EQ(train(2, {"--overwrite"}).digest(), first_.digest());
}

// From an earlier checkpoint a run comes to the same later ones, unless it ends before them.
TEST_F(Resume, BelowNewerCheckpointsReplacesThemAndRemovesNone) {
  const Words constant = Words{"--train.schedule", "constant"} + kKeepAll;
  ASSERT_EQ(train(2, constant + Words{"--overwrite"}).code, 0);
  const auto before = contents(run_folder());
  const Words from_the_second = constant + Words{"--resume", checkpoint(2).string(), "--checkpoint.keep", "2"};
  const Outcome shorter = train(2, from_the_second + Words{"--run.steps", "4"});
  EXPECT_EQ(shorter.code, kUsage) << shorter;
  for (const char* part : {"ends after step 4", "would remove", "checkpoint-00000005.h5", "run.name"})
    EXPECT_NE(shorter.err.find(part), std::string::npos) << "missing: " << part << "\n" << shorter;
  EXPECT_EQ(contents(run_folder()), before);

  const Outcome resumed = train(2, from_the_second);
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.line("checkpoint "), checkpoint(9).lexically_relative(path("")).string());
  EXPECT_EQ(io::list_checkpoints(run_folder()), (std::vector<fs::path>{checkpoint(8), checkpoint(9)}));
}

TEST_F(Resume, AFinishedRunUnderAnotherNameSavesItsOwnCheckpoint) {
  const Outcome fresh = train(2, {"--run.name", "fresh", "--resume", checkpoint(9).string()});
  EXPECT_EQ(fresh.code, 0) << fresh;
  EXPECT_EQ(fresh.line("checkpoint "), "runs/fresh/checkpoint-00000009.h5");
  EXPECT_TRUE(io::describe_checkpoint(path("runs/fresh/checkpoint-00000009.h5")).verifies);
  EXPECT_EQ(fresh.digest(), first_.digest());
}

TEST_F(Resume, RefusesACheckpointPastTheEnd) {
  const Words constant = {"--train.schedule", "constant"};
  ASSERT_EQ(train(2, constant + Words{"--overwrite"}).code, 0);
  const Outcome refused = train(2, constant + Words{"--resume", "--run.steps", "3"});
  EXPECT_EQ(refused.code, kUsage) << refused;
  for (const char* part : {"checkpoint-00000009.h5", "after step 9", "after step 3", "run.steps"})
    EXPECT_NE(refused.err.find(part), std::string::npos) << "missing: " << part << "\n" << refused;
  EXPECT_EQ(newest_checkpoint(), 9);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
}

// As many images of the same shape, but not the same ones.
TEST_F(Resume, RefusesOtherData) {
  write_mnist(path("mnist"));
  write_mnist(path("other"));
  std::string labels = idx_labels(100);
  std::swap(labels[8 + 41], labels[8 + 42]);
  write_gzip(path("other/train-labels-idx1-ubyte.gz"), labels);
  const auto words = [](const char* data) {
    return Words{"--run.name", "m", "--data.kind", "mnist", "--data.path", data, "--model.patch", "7"};
  };
  const Outcome whole = train(2, words("mnist"));
  ASSERT_EQ(whole.code, 0) << whole;
  const Outcome refused = train(2, words("other") + Words{"--resume"});
  EXPECT_EQ(refused.code, kUsage) << refused;
  for (const char* part : {"runs/m/checkpoint-00000006.h5", "trained on mnist ", "; other now",
                           "data_train: 100 samples", "data.path", "run.name"})
    EXPECT_NE(refused.err.find(part), std::string::npos) << "missing: " << part << "\n" << refused;
  EXPECT_EQ(refused.err.find("data_test"), std::string::npos) << "that is the same\n" << refused;

  fs::rename(path("mnist"), path("moved"));
  EXPECT_EQ(train(2, words("moved") + Words{"--resume"}).digest(), whole.digest()) << "where it lies is no matter";
  const auto results = io::describe_results(path("runs/m/results.h5")).attributes;
  EXPECT_EQ(results.at("data_train").substr(0, 12), "100 samples,");
  EXPECT_EQ(results.at("data_test").substr(0, 11), "20 samples,");
}

TEST_F(Resume, RefusesAnotherConfigurationNamingTheKeys) {
  const Outcome other = train(2, {"--resume", "--train.lr", "0.5", "--ffn.router", "random"});
  EXPECT_EQ(other.code, kUsage) << other;
  for (const char* part : {"checkpoint-00000009.h5", "train.lr: 0.01 -> 0.5", "ffn.router: switch -> random"})
    EXPECT_NE(other.err.find(part), std::string::npos) << "missing: " << part << "\n" << other;
  EXPECT_EQ(train(2, {"--resume"}).digest(), first_.digest()) << "nothing was lost";
}

// What a key of today did when there was none of it: a run goes on with that, or is refused.
TEST_F(Resume, GoesOnWithWhatWasDoneBeforeThereWasAKey) {
  struct Case {
    const char *router, *capacity, *key, *before, *now;
  };
  for (const Case& c : {Case{"noisy_top_k", "0", "noise_floor", "0", "0.01"},
                        Case{"top_k", "1", "capacity_order", "token", "choice"}}) {
    const Words words = {"--run.name", c.router, "--ffn.router", c.router, "--ffn.capacity_train", c.capacity};
    const std::string key = fmt::format("--ffn.{}", c.key);
    const Outcome whole = train(2, words + Words{key, c.before, "--checkpoint.every", "4", "--checkpoint.keep", "9"});
    ASSERT_EQ(whole.code, 0) << whole;
    const fs::path old = path(std::string(c.router) + ".h5");
    copy_without_key(io::checkpoint_path(path("runs") / c.router, 4), old, c.key);
    const Outcome refused = train(2, words + Words{"--resume", old.string()});
    EXPECT_EQ(refused.code, kUsage) << refused;
    EXPECT_NE(refused.err.find(fmt::format("ffn.{}: {} -> {}", c.key, c.before, c.now)), std::string::npos) << refused;
    EXPECT_EQ(train(2, words + Words{key, c.before, "--overwrite", "--resume", old.string()}).digest(), whole.digest())
        << c.key;
  }
  copy_without_key(checkpoint(6), path("switch.h5"), "noise_floor");
  copy_without_key(path("switch.h5"), path("older.h5"), "capacity_order");
  EXPECT_EQ(train(2, {"--run.name", "older", "--resume", path("older.h5").string()}).digest(), first_.digest());
}

TEST_F(Resume, RefusesToReplaceARunUnasked) {
  const auto saved = fs::last_write_time(checkpoint(9));
  const Outcome again = train(2);
  EXPECT_EQ(again.code, kUsage) << again;
  for (const char* part : {"runs/small", "--resume", "--overwrite", "run.name"})
    EXPECT_NE(again.err.find(part), std::string::npos) << "missing: " << part << "\n" << again;
  EXPECT_EQ(fs::last_write_time(checkpoint(9)), saved);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));

  const Outcome replaced = train(2, {"--overwrite", "--run.steps", "2"});
  EXPECT_EQ(replaced.code, 0) << replaced;
  EXPECT_EQ(newest_checkpoint(), 2) << "checkpoints of the earlier run are gone";
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(2));
}

TEST_F(Resume, OverwritesNothingWhereAFolderOrAPipeIsInAFilesPlace) {
  const fs::path folder = checkpoint(99), pipe = run_folder() / "results.h5.tmp";
  const auto refused = [&](const std::string& name, const std::string& kind) {
    const Outcome outcome = train(2, {"--overwrite"});
    EXPECT_EQ(outcome.code, kFailure) << outcome;
    for (const std::string& part : {name, kind, std::string("move it away")})
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "missing: " << part << "\n" << outcome;
  };
  fs::create_directories(folder / "notes");
  refused("checkpoint-00000099.h5", "is a folder");
  fs::remove_all(folder);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  refused("results.h5.tmp", "is a device or a pipe");
  EXPECT_TRUE(io::describe_checkpoint(checkpoint(9)).verifies);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
}

// ... nor to mix it with another one, whose checkpoint it is to go on from.
TEST_F(Resume, RefusesToReplaceARunByAnotherOnesCheckpointUnasked) {
  const Words other = {"--run.seed", "2"};
  const Outcome second = train(2, other + kKeepAll + Words{"--run.name", "other"});
  ASSERT_EQ(second.code, 0) << second;
  const auto before = contents(run_folder());
  const Words onto_the_first = other + Words{"--resume", path("runs/other/checkpoint-00000004.h5").string()};
  const Outcome refused = train(2, onto_the_first);
  EXPECT_EQ(refused.code, kUsage) << refused;
  for (const char* part : {"runs/small", "already holds a run", "--overwrite", "run.name"})
    EXPECT_NE(refused.err.find(part), std::string::npos) << "missing: " << part << "\n" << refused;
  EXPECT_EQ(contents(run_folder()), before);

  const Outcome replaced = train(2, onto_the_first + kKeepAll + Words{"--overwrite"});
  EXPECT_EQ(replaced.code, 0) << replaced;
  EXPECT_EQ(replaced.digest(), second.digest());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), (std::vector<Index>{5, 6, 7, 8, 9}));
  EXPECT_EQ(io::list_checkpoints(run_folder()).size(), 5u) << "those of the earlier run are gone";
}

// Where another run's checkpoints were copied into the folder, or its results are all that is there.
TEST_F(Resume, RefusesToMixItsRowsWithAnotherRuns) {
  const Words other = {"--run.seed", "2"};
  ASSERT_EQ(train(2, other + kKeepAll + Words{"--run.name", "other"}).code, 0);
  for (Index step = 1; step <= 9; ++step) fs::remove(checkpoint(step));
  const auto refuse = [&](const Words& words) {
    const auto before = contents(run_folder());
    const Outcome refused = train(2, words);
    EXPECT_EQ(refused.code, kUsage) << refused;
    for (const char* part : {"runs/small/results.h5", "the results of another run", "run.seed: 3 -> 2", "Move it away"})
      EXPECT_NE(refused.err.find(part), std::string::npos) << "missing: " << part << "\n" << refused;
    EXPECT_EQ(contents(run_folder()), before);
  };
  refuse(other + Words{"--resume"});
  fs::copy_file(path("runs/other/checkpoint-00000004.h5"), checkpoint(4));
  refuse(other + Words{"--resume"});
  refuse(other + Words{"--resume", checkpoint(4).string()});
}

TEST_F(Resume, OverwritesTheRunThatItGoesOnWithNeitherAsAWholeNorByItsName) {
  const auto before = contents(run_folder());
  const Outcome both = train(2, {"--resume", "--overwrite"});
  EXPECT_EQ(both.code, kUsage) << both;
  EXPECT_NE(both.err.find("--resume FILE --overwrite"), std::string::npos) << both;
  const fs::path renamed = run_folder() / "checkpoint-00000099.h5";
  fs::rename(checkpoint(9), renamed);
  const Outcome own = train(2, {"--resume", renamed.string(), "--overwrite"});
  EXPECT_EQ(own.code, kUsage) << own;
  EXPECT_NE(own.err.find("--overwrite would remove it"), std::string::npos) << own;
  fs::rename(renamed, checkpoint(9));
  EXPECT_EQ(train(2, {"--resume", checkpoint(4).string(), "--overwrite"}).code, kUsage);
  EXPECT_EQ(contents(run_folder()), before);
}

// Rows and notes of a run that was killed before its first checkpoint: the rows come again, the notes stay.
TEST_F(Resume, FromTheBeginningKeepsWhatPeopleWroteIntoTheResults) {
  for (Index step = 1; step <= 9; ++step) fs::remove(checkpoint(step));
  {
    io::ResultsWriter writer = io::ResultsWriter::reopen(
        run_folder() / "results.h5", 9, {{"note", "keep"}, {"status", "running"}}, {.layers = 2, .experts = 4});
  }
  const Outcome again = train(2, {"--resume"});
  EXPECT_EQ(again.code, 0) << again;
  EXPECT_EQ(again.digest(), first_.digest());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
  EXPECT_EQ(io::describe_results(run_folder() / "results.h5").attributes.at("note"), "keep");
}

TEST_F(Resume, RefusesToTrainAFinishedRunAnewUnasked) {
  for (Index step = 1; step <= 9; ++step) fs::remove(checkpoint(step));
  const auto before = contents(run_folder());
  const Outcome refused = train(2, {"--resume"});
  EXPECT_EQ(refused.code, kUsage) << refused;
  EXPECT_NE(refused.err.find("runs/small/results.h5 is of a finished run"), std::string::npos) << refused;
  EXPECT_EQ(refused.out.find("starting from the beginning"), std::string::npos) << refused;
  EXPECT_EQ(contents(run_folder()), before);
}

TEST_F(Resume, WritesResultsAnewThatWereRemovedMeanwhile) {
  const auto running = start(2, training({"--run.name", "long", "--run.epochs", "40", "--run.eval_every", "20"}));
  const fs::path results = path("runs/long/results.h5");
  ASSERT_TRUE(wait_until([&] { return fs::exists(results); }));
  fs::remove(results);
  const Outcome outcome = running->wait();
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_NE((outcome.out + outcome.err).find("was removed while this run was writing to it"), std::string::npos)
      << outcome;
  EXPECT_EQ(logged_steps(results), steps_up_to(120));
}

TEST_F(Resume, WithoutItsResultsFileKeepsTheCheckpointsResult) {
  fs::remove(run_folder() / "results.h5");
  const Outcome resumed = train(2, Words{"--resume", checkpoint(5).string()} + kKeepAll);
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.digest(), first_.digest());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), (std::vector<Index>{6, 7, 8, 9}));
  EXPECT_NE(resumed.err.find("results.h5: holds no rows of steps 1 to 5"), std::string::npos) << resumed;
  EXPECT_EQ(resumed.err.find("holds no rows", resumed.err.find("holds no rows") + 1), std::string::npos) << resumed;
}

TEST_F(Resume, AFinishedRunWithoutItsResultsFileIsEvaluatedAgain) {
  const auto evaluation = io::describe_results(run_folder() / "results.h5").evaluations.back();
  fs::remove(run_folder() / "results.h5");
  const Outcome resumed = train(2, {"--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_NE(resumed.err.find("results.h5: holds no rows of steps 1 to 9"), std::string::npos) << resumed;
  const auto anew = io::describe_results(run_folder() / "results.h5").evaluations;
  ASSERT_EQ(anew.size(), 1u);
  EXPECT_EQ(anew[0].step, 9);
  EXPECT_EQ(anew[0].accuracy, evaluation.accuracy);
  EXPECT_EQ(anew[0].loss, evaluation.loss);
}

}  // namespace
}  // namespace switchyard::test
