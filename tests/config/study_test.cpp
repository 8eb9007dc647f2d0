// Reading a study: axes, rules, names, identities, and what is refused.
#include "config/study.hpp"

#include <gtest/gtest.h>

#include <set>

#include "config/test_files.hpp"

namespace switchyard {
namespace {

using test::expect_error;
using test::TemporaryFolder;
using Overrides = std::vector<std::pair<std::string, std::string>>;

class StudyFile : public testing::Test {
 protected:
  Study read(const std::string& text, const Overrides& overrides = {}) {
    return read_study(folder_.write("sweep.cfg", text), overrides);
  }
  std::vector<std::string> names(const std::string& text, const Overrides& overrides = {}) {
    std::vector<std::string> result;
    for (const StudyRun& run : read(text, overrides).runs) result.push_back(run.name);
    return result;
  }
  void refuses(const std::string& text, std::initializer_list<std::string> parts, const Overrides& overrides = {}) {
    expect_error(ExitCode::kUsage, parts, [&] { read(text, overrides); });
  }
  TemporaryFolder folder_;
};

using Names = std::vector<std::string>;

TEST_F(StudyFile, EveryCombinationTheFirstAxisSlowest) {
  const Study study = read(
      "[run]\nout = here\n[ffn]\nkind = moe\n[study]   # two axes\nranks = 2\naxis = ffn.experts: 4, 8\n"
      "axis = run.seed: 1..3\n[train]\nbatch = 64\n");
  EXPECT_EQ(study.name, "sweep");
  EXPECT_EQ(study.folder(), "here/sweep");
  EXPECT_EQ(study.axis_keys, (Names{"ffn.experts", "run.seed"}));
  ASSERT_EQ(study.runs.size(), 6u);
  EXPECT_EQ(study.runs[0].name, "experts4-seed1");
  EXPECT_EQ(study.runs[5].name, "experts8-seed3");
  const Config& last = study.runs[5].config;
  EXPECT_EQ(last.ffn.experts, 8);
  EXPECT_EQ(last.run.seed, 3u);
  EXPECT_EQ(last.train.batch, 64) << "keys after [study] count";
  EXPECT_EQ(last.run.out, "here/sweep");
  EXPECT_EQ(last.run.name, "experts8-seed3");
  EXPECT_EQ(study.runs[5].ranks, 2);
}

// Of each run by itself: its router may be an axis's.
TEST_F(StudyFile, ThatIsOlderThanAKeyHasRunsOfWhatTheProgramDidThen) {
  const std::string text = "[ffn]\nkind = moe\n[study]\naxis = ffn.router: switch, noisy_top_k\n";
  const auto floors = [&](const Overrides& overrides, bool stored) {
    std::vector<double> result;
    for (const StudyRun& run : read_study(folder_.write("sweep.cfg", text), overrides, {}, stored).runs)
      result.push_back(run.config.ffn.noise_floor);
    return result;
  };
  EXPECT_EQ(floors({}, true), (std::vector<double>{0.01, 0}));
  EXPECT_EQ(floors({{"ffn.noise_floor", "0.01"}}, true), (std::vector<double>{0.01, 0.01}));
  EXPECT_EQ(floors({}, false), (std::vector<double>{0.01, 0.01})) << "a user's file has defaults";
}

TEST_F(StudyFile, KeysThatMoveTogetherAndOneValue) {
  const Study study =
      read("[study]\nname = s\naxis = train.batch, train.lr: 128 & 1e-3, 256 & 2e-3\naxis = run.seed: 7\n");
  ASSERT_EQ(study.runs.size(), 2u);
  EXPECT_EQ(study.runs[1].name, "batch256-lr0.002-seed7");
  EXPECT_EQ(study.runs[1].config.train.lr, 2e-3);
}

TEST_F(StudyFile, NamesOfTextsFlagsRanksAndKeysOfOneName) {
  EXPECT_EQ(
      names("[ffn]\nkind = moe\n[study]\naxis = ffn.router: top_k\naxis = data.flip: true, false\naxis = ranks: 2\n"
            "axis = parallel.experts: 1\naxis = ffn.experts: 4\n"),
      (Names{"top_k-flip-ranks2-parallel.experts1-ffn.experts4",
             "top_k-noflip-ranks2-parallel.experts1-ffn.experts4"}));
  EXPECT_EQ(names("[study]\nname = one\n"), Names{"run"});
}

TEST_F(StudyFile, RulesTieAndExclude) {
  const std::string text =
      "[ffn]\nkind = moe\n[study]\naxis = ffn.experts: 1, 4, 8\naxis = train.batch: 128, 256\n"
      "set = ffn.kind: dense if ffn.experts: 1\nexclude = ffn.experts: 4, 8; train.batch: 256\n";
  const Study study = read(text);
  EXPECT_EQ(names(text), (Names{"experts1-batch128", "experts1-batch256", "experts4-batch128", "experts8-batch128"}));
  EXPECT_EQ(study.runs[0].config.ffn.kind, "dense");
  EXPECT_EQ(study.runs[2].config.ffn.kind, "moe");
}

TEST_F(StudyFile, RunsThatRulesMakeAlikeAreOne) {
  EXPECT_EQ(names("[study]\naxis = ffn.kind: dense, moe\naxis = ffn.experts: 4, 8\n"
                  "set = ffn.experts: 1 if ffn.kind: dense\n"),
            (Names{"dense-experts1", "moe-experts4", "moe-experts8"}));
}

TEST_F(StudyFile, TheCommandLineSetsTheBaseAndChoosesAmongAnAxis) {
  const std::string text = "[train]\nbatch = 64\n[study]\naxis = run.seed: 1..3\naxis = train.lr: 1e-3, 2e-3\n";
  const Study study = read(text, {{"train.batch", "128"}, {"run.seed", "2"}, {"train.lr", "0.002"}, {"ranks", "4"}});
  ASSERT_EQ(study.runs.size(), 1u);
  EXPECT_EQ(study.runs[0].name, "seed2-lr0.002");
  EXPECT_EQ(study.runs[0].config.train.batch, 128);
  EXPECT_EQ(study.runs[0].ranks, 4);
  EXPECT_EQ(names(text, {{"run.seed", "1,3"}, {"train.lr", "1e-3"}}), (Names{"seed1-lr0.001", "seed3-lr0.001"}));
  refuses(text, {"command line: run.seed = \"9\"", "sweep.cfg:4", "1 | 2 | 3"}, {{"run.seed", "9"}});
}

TEST_F(StudyFile, TheCommandLineWinsOverRules) {
  const std::string text =
      "[study]\naxis = ffn.kind: dense, moe\nset = run.epochs: 9; train.lr: 0.5 if ffn.kind: dense\n"
      "set = train.warmup_steps: 3 if ffn.kind: moe\nset = ranks: 2 if ffn.kind: moe\n";
  const Study study = read(text, {{"run.epochs", "2"}, {"train.warmup_steps", "1"}, {"ranks", "4"}});
  const Study again = read(study.text);
  for (const Study* each : {&study, &again}) {
    ASSERT_EQ(each->runs.size(), 2u);
    for (const StudyRun& run : each->runs) {
      EXPECT_EQ(run.config.run.epochs, 2) << run.name;
      EXPECT_EQ(run.config.train.warmup_steps, 1) << run.name;
      EXPECT_EQ(run.ranks, 4) << run.name;
    }
    EXPECT_EQ(each->runs[0].config.train.lr, 0.5) << "the rest of the rule holds";
  }
  EXPECT_EQ(read(text, {{"ffn.kind", "dense"}}).runs[0].config.run.epochs, 9) << "of an axis a key but chooses";
}

TEST_F(StudyFile, ValuesOfKeysThatMoveTogetherAreToldOnce) {
  refuses("[study]\naxis = ffn.kind, ffn.leaf: dense & 1, fff & 8, fff & 4\n", {"allowed: dense | fff."},
          {{"ffn.kind", "moe"}});
}

TEST_F(StudyFile, AnotherFileSetsTheBaseButNoAxis) {
  const std::string sweep = folder_.write("sweep.cfg", "[study]\naxis = run.seed: 1..3\n");
  const Study study = read_study(sweep, {}, {folder_.write("more.cfg", "[train]\nbatch = 64\n")});
  EXPECT_EQ(study.runs[0].config.train.batch, 64);
  const std::string seed = folder_.write("seed.cfg", "[run]\nseed = 2\n");
  expect_error(ExitCode::kUsage, {"--config: run.seed = 2 has an axis", "sweep.cfg:2", "--run.seed 2"},
               [&] { read_study(sweep, {}, {seed}); });
}

TEST_F(StudyFile, ItsTextReadsBackAsTheSameStudy) {
  const Study study = read(
      "[ffn]\nkind = moe\n[study]\nname = other\naxis = ffn.experts, ranks: 1 & 1, 4 & 2\naxis = run.seed: 1..3\n"
      "set = ffn.kind: dense if ffn.experts: 1\nexclude = run.seed: 3; ranks: 1\n",
      {{"run.seed", "3"}});
  const Study again = read(study.text);
  EXPECT_EQ(again.text, study.text);
  ASSERT_EQ(again.runs.size(), 1u);
  EXPECT_EQ(again.runs[0].name, "experts4-ranks2-seed3");
  EXPECT_EQ(again.runs[0].identity, study.runs[0].identity);
}

TEST_F(StudyFile, AnAxisMayHaveTenThousandValues) {
  const Study study = read("[study]\naxis = run.seed: 1..5000, 5001..10000\n");
  ASSERT_EQ(study.runs.size(), 10000u);
  EXPECT_EQ(study.runs.back().name, "seed10000");
}

TEST_F(StudyFile, IdentityIsOfWhatTheResultDependsOn) {
  Config config;
  const std::string before = run_identity(config, 1, {});
  EXPECT_EQ(before.size(), 16u);
  config.run.name = "other", config.run.out = "elsewhere", config.parallel.threads = 2, config.data.path = "moved";
  EXPECT_EQ(run_identity(config, 4, {}), before);
  EXPECT_NE(run_identity(config, 4, {"ranks"}), run_identity(config, 1, {"ranks"}));
  EXPECT_NE(run_identity(config, 1, {"parallel.threads"}), run_identity(Config(), 1, {"parallel.threads"}));
  config.train.lr *= 2;
  EXPECT_NE(run_identity(config, 1, {}), before);
}

// Also of those by which a run that is resumed may go on for longer.
TEST_F(StudyFile, DifferencesOfIdentityNameTheKeys) {
  Config before;
  before.train.schedule = "constant";
  StudyRun run{"run", before, 4, ""};
  run.config.run.epochs = 5, run.config.run.name = "other";
  ASSERT_NE(run_identity(before, 1, {}), run_identity(run.config, 1, {}));
  EXPECT_EQ(identity_differences(before, 1, run, {}), Names{"run.epochs: 1 -> 5"});
  EXPECT_EQ(identity_differences(before, 1, run, {"ranks"}), (Names{"run.epochs: 1 -> 5", "ranks: 1 -> 4"}));
}

TEST_F(StudyFile, MalformedLinesNameFileLineAndForm) {
  refuses("[run]\nseed = 1\n", {"sweep.cfg: is no study", "[study]"});
  refuses("[study]\naxis = run.seed 1, 2\n", {"sweep.cfg:2:", "the : after the key is missing", "axis = KEY: V1, V2"});
  refuses("[study]\naxis = run.seed:\n", {"sweep.cfg:2:", "the values are missing"});
  refuses("[study]\naxis = run.seed: 1,,2\n", {"sweep.cfg:2:", "a value is missing beside a comma"});
  refuses("[study]\naxis = run.seed: 1, 2, 1\n", {"sweep.cfg:2:", "\"1\" is there twice"});
  refuses("[study]\naxis = run.seed: 3..1\n", {"sweep.cfg:2:", "\"3..1\" is empty"});
  refuses("[study]\naxis = run.seed: 1..99999999999\n", {"sweep.cfg:2:", "more than 10000 values"});
  refuses("[study]\naxis = run.seed: 0..10000\n",
          {"sweep.cfg:2:", "the range \"0..10000\" has more than 10000 values"});
  refuses("[study]\naxis = run.seed: 1..9999, 10000..10001\n", {"sweep.cfg:2:", "the axis has more than 10000 values"});
  refuses("[study]\naxis = train.batsch: 1\n", {"sweep.cfg:2:", "did you mean train.batch?"});
  refuses("[study]\n\naxis = train.batch: zwei\n", {"sweep.cfg:3:", "train.batch = \"zwei\"", "a whole number from 1"});
  refuses("[study]\naxis = ranks: 0\n", {"sweep.cfg:2:", "ranks = \"0\"", "from 1"});
  refuses("[study]\naxis = train.batch, train.lr: 128\n", {"sweep.cfg:2:", "1 values for the 2 keys"});
  refuses("[study]\naxis = run.seed: 1\naxis = run.seed: 2\n", {"sweep.cfg:3:", "has an axis already"});
  refuses("[study]\naxis = run.name: a, b\n", {"sweep.cfg:2:", "run.name cannot be an axis"});
  refuses("[study]\nset = ffn.kind: dense\n", {"sweep.cfg:2:", "the word if"});
  refuses("[study]\naxes = run.seed: 1\n", {"sweep.cfg:2:", "unknown key \"axes\" in [study], did you mean axis?"});
  refuses("[run]\nseed = 1\n[study\naxis = run.seed: 1, 2\n", {"sweep.cfg:3:", "the ] after the section's name"});
  refuses("[study]\nname = a/b\n", {"sweep.cfg:2:", "without /"});
  refuses("[study]\nname = a\nname = b\n", {"sweep.cfg:3:", "a second time"});
  refuses("[study]\nranks = 1\n[train]\nlr = x\n", {"sweep.cfg:4:", "train.lr = \"x\""});
}

TEST_F(StudyFile, CombinationsThatCannotRunNameTheRun) {
  refuses("[study]\naxis = train.batch: 128, 100\n", {"its run batch100", "train.microbatch = 16", "exclude"});
  refuses("[study]\nranks = 3\naxis = run.seed: 1\n", {"its run seed1", "3 ranks cannot share"});
  refuses("[study]\naxis = run.seed: 1..2\nexclude = run.seed: 1..2\n", {"exclude every run"});
  refuses("[study]\naxis = run.seed: 1..2\nset = train.lr: 1; run.seed: 1 if run.seed: 2\n", {"two runs", "seed1"});
  refuses("[study]\naxis = data.path: a/b, a-b\n", {"two runs", "a_b", "signs such as / and -"});
  EXPECT_EQ(names("[study]\naxis = run.seed: 9223372036854775806..9223372036854775807\n").size(), 2u);
  refuses("[study]\naxis = run.seed: 1..1000\naxis = train.batch: 16, 32\naxis = train.warmup_steps: 0..99\n",
          {"more than 100000 runs"});
}

}  // namespace
}  // namespace switchyard
