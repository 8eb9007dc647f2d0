// switchyard study: a few tiny runs, finished, skipped, failed, summed up and linked.
#include <hdf5.h>

#include <cmath>
#include <sstream>

#include "study_program.hpp"

namespace switchyard::test {
namespace {

TEST_F(StudyProgram, RunsOnceAndThenNothing) {
  const Outcome list = study({"list", "tiny.cfg"});
  EXPECT_EQ(list.out, "0 experts1-seed1 1\n1 experts1-seed2 1\n2 experts4-seed1 1\n3 experts4-seed2 1\n");
  const Outcome first = run();
  ASSERT_EQ(first.code, 0) << first;
  expect_part(first.out, "tiny: 4 runs, 4 done\n");
  const auto when = fs::last_write_time(run_of("experts4-seed2") / "results.h5");
  const Outcome second = run();
  EXPECT_EQ(second.code, 0) << second;
  expect_part(second.out, "4 done before");
  EXPECT_EQ(second.out.find("done     "), std::string::npos) << second;
  EXPECT_EQ(fs::last_write_time(run_of("experts4-seed2") / "results.h5"), when);
  // The same training by hand ends at the same bits.
  const Outcome by_hand = train(2, {"--run.name", "hand", "--run.seed", "2", "--parallel.experts", "2"});
  expect_part(log_of("experts4-seed2"), "digest " + by_hand.digest());

  const Outcome table = study({"table", "runs/tiny", "--markdown"});
  ASSERT_EQ(table.code, 0) << table;
  expect_part(table.out, "| ffn.experts | runs |");
  expect_part(table.out, "+-");
  expect_part(table.out, "4 runs, 4 of 4 done");
  const std::string single = study({"table", "tiny.cfg", "--run.seed", "1"}).out;
  EXPECT_EQ(single.find("+-"), single.rfind("Mean +-") + 5) << "one run has no interval\n" << single;
}

TEST_F(StudyProgram, ADenseRunHasNoRouterInTheTable) {
  folder_.write("tiny.cfg", base_ + kStudy +
                                "axis = ffn.router: switch, top_k\n"
                                "set = ffn.router: switch if ffn.experts: 1\n");
  const Outcome table = study({"table", "tiny.cfg", "--markdown"});
  expect_part(table.out, "| ffn.experts | ffn.router |");
  expect_part(table.out, "|-------------|------------|--");
  expect_part(table.out, "| 1           | -          |");
  expect_part(table.out, "| 4           | top_k      |");
}

// Whatever router is named, a dense run of one seed is the same run: timed twice, but one accuracy, without interval.
TEST_F(StudyProgram, RunsOfTheSameBitsAreOneOutcomeInTheTable) {
  folder_.write("tiny.cfg", base_ + kStudy + "axis = ffn.router: switch, top_k\n");
  const Words dense = {"--run.seed", "1", "--ffn.experts", "1"};
  ASSERT_EQ(run(dense).code, 0);
  const Outcome table = study(Words{"table", "tiny.cfg"} + dense);
  const std::string row = table.line("1 ");
  const std::size_t interval = row.find("+-");
  expect_part(row, " 2 ");
  EXPECT_NE(interval, std::string::npos) << table;
  EXPECT_EQ(interval, row.rfind("+-")) << "of the seconds an epoch alone\n" << table;
}

TEST_F(StudyProgram, OneRunByItsIndexOrName) {
  const Outcome one = run({"--only", "2"});
  EXPECT_EQ(one.code, 0) << one;
  EXPECT_TRUE(fs::exists(run_of("experts4-seed1") / "results.h5"));
  EXPECT_FALSE(fs::exists(run_of("experts4-seed2")));
  EXPECT_EQ(run({"--only", "experts4-seed2"}).code, 0);
  expect_state("experts4-seed1", "done");
  expect_state("experts4-seed2", "done");
  expect_state("experts1-seed1", "pending");
  const Outcome none = run({"--only", "4"});
  EXPECT_EQ(none.code, 2) << none;
  expect_part(none.err, "index from 0 to 3");
}

TEST_F(StudyProgram, AFailedRunIsReportedAndTheOthersGoOn) {
  // Of both experts' runs of seed 1 the rate is so high that the loss is soon not finite.
  folder_.write("tiny.cfg", base_ + kStudy + "set = train.lr: 1e6; train.optimizer: sgd if run.seed: 1\n");
  const Outcome outcome = run();
  EXPECT_EQ(outcome.code, 1) << outcome;
  expect_part(outcome.out, "failed   experts1-seed1");
  expect_part(outcome.out, "exit code 3; runs/tiny/experts1-seed1/train.log ends with");
  expect_part(outcome.out, "not finite");
  expect_part(outcome.out, "tiny: 4 runs, 2 done, 2 failed");
  expect_state("experts1-seed1", "failed");
  expect_state("experts1-seed2", "done");
  const Outcome table = study({"table", "tiny.cfg"});
  expect_part(table.out, "1 of 2");
}

TEST_F(StudyProgram, ARunThatCannotBeginIsReportedAndTheOthersGoOn) {
  fs::create_directories(run_of("experts1-seed2") / "run.cfg");  // a file is to take its place
  const Outcome outcome = run();
  EXPECT_EQ(outcome.code, 1) << outcome;
  expect_part(outcome.out, "failed   experts1-seed2  not started: ");
  expect_part(outcome.out, "tiny: 4 runs, 3 done, 1 failed");
  for (const auto& entry : fs::recursive_directory_iterator(path("runs/tiny")))
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
}

TEST_F(StudyProgram, DamagedResultsAreReportedKeptAndGoneOnWithout) {
  const Words three = {"--only", "3"};
  ASSERT_EQ(run(three).code, 0);
  const fs::path results = run_of("experts4-seed2") / "results.h5";
  const auto shorten = [&] { fs::resize_file(results, fs::file_size(results) / 2); };
  const auto lose_a_column = [&] {
    const hid_t file = H5Fopen(results.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    EXPECT_GE(H5Ldelete(file, "steps/loss", H5P_DEFAULT), 0);
    H5Fclose(file);
  };
  for (const auto& [aside, damage] : std::map<std::string, std::function<void()>>{
           {"results.h5.damaged", shorten}, {"results.h5.damaged2", lose_a_column}}) {
    damage();
    expect_state("experts4-seed2", "pending");
    const Outcome again = run(three);
    EXPECT_EQ(again.code, 0) << again;
    expect_part(again.out, aside);
    EXPECT_TRUE(fs::exists(run_of("experts4-seed2") / aside));
    expect_state("experts4-seed2", "done");
  }
}

// An accuracy that is no number must not count as one of 0.
TEST_F(StudyProgram, AFinishedRunWithoutItsAccuracyIsNotDone) {
  const Words three = {"--only", "3"};
  ASSERT_EQ(run(three).code, 0);
  {
    const hid_t file = H5Fopen((run_of("experts4-seed2") / "results.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t attribute = H5Aopen(file, "test_accuracy", H5P_DEFAULT), type = H5Aget_type(attribute);
    const std::string text(H5Tget_size(type), '?');
    EXPECT_GE(H5Awrite(attribute, type, text.data()), 0);
    H5Tclose(type);
    H5Aclose(attribute);
    H5Fclose(file);
  }
  expect_state("experts4-seed2", "failed");
  EXPECT_EQ(run(three).code, 0);
  expect_state("experts4-seed2", "done");
}

TEST_F(StudyProgram, AnotherStudyOrAnotherRunInItsFolderIsRefused) {
  ASSERT_EQ(run({"--only", "3"}).code, 0);
  const Outcome other = run({"--train.lr", "0.5"});
  EXPECT_EQ(other.code, 2) << other;
  expect_part(other.err,
              "runs/tiny holds another study of this name: its run experts1-seed1 is another one (train.lr: ");
  expect_part(other.err, "--run.out");
  EXPECT_EQ(run({"--run.seed", "2", "--only", "1"}).code, 0) << "a part of it is the same study";

  const Outcome by_hand = train(1, {"--run.out", "runs/tiny", "--run.name", "experts1-seed1"});
  ASSERT_EQ(by_hand.code, 0) << by_hand;
  const Outcome foreign = run();
  EXPECT_EQ(foreign.code, 2) << foreign;
  expect_part(foreign.err, "runs/tiny/experts1-seed1 holds a run of another configuration");
  expect_part(foreign.err, "ffn.kind: moe -> dense");
  EXPECT_FALSE(fs::exists(run_of("experts1-seed2"))) << "nothing was started";
}

// A column of a file.
std::vector<double> numbers(const fs::path& path, const char* name, std::size_t rows) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen(file, name, H5P_DEFAULT);
  std::vector<double> values(rows, -1);
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
  H5Dclose(dataset);
  H5Fclose(file);
  return values;
}

TEST_F(StudyProgram, AStudyAndARunDoNotShareAFolder) {
  ASSERT_EQ(run({"--only", "3"}).code, 0);
  const Outcome into_study = train(1, {"--run.name", "tiny"});
  EXPECT_EQ(into_study.code, 2) << into_study;
  expect_part(into_study.err, "runs/tiny is the folder of a study: choose another run.name");
  ASSERT_EQ(train(1, {"--run.name", "alone"}).code, 0);
  folder_.write("alone.cfg", base_ + kStudy);
  const Outcome into_run = study({"run", "alone.cfg"});
  EXPECT_EQ(into_run.code, 2) << into_run;
  expect_part(into_run.err, "runs/alone holds a run: choose another name for the study");
}

TEST_F(StudyProgram, CollectLinksByRelativePaths) {
  ASSERT_EQ(run({"--run.seed", "2"}).code, 0);
  const Outcome collected = study({"collect", "runs/tiny", "--output", "runs/all.h5"});
  ASSERT_EQ(collected.code, 0) << collected;
  const Outcome inspected = Program::run(1, {"inspect", "runs/all.h5"});
  EXPECT_EQ(inspected.code, 0) << inspected;
  expect_part(inspected.out, "runs/all.h5: study tiny");
  expect_part(inspected.out, "table axes: 2 rows, 2 columns");
  fs::rename(path("runs"), path("moved"));
  const hid_t file = H5Fopen(path("moved/all.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const hid_t steps = H5Dopen(file, "runs/experts4-seed2/steps/step", H5P_DEFAULT);
  EXPECT_GE(steps, 0) << "the link leads to the results";
  H5Dclose(steps);
  H5Fclose(file);
  const auto column = [&](const char* name) { return numbers(path("moved/all.h5"), name, 2); };
  EXPECT_EQ(column("axes/ffn.experts"), (std::vector<double>{1, 4}));
  EXPECT_GT(column("table/test_accuracy")[1], 0);
  EXPECT_LE(column("table/test_accuracy")[1], 1);
}

TEST_F(StudyProgram, ScoresAreInTheTableAndInTheCollectedFile) {
  folder_.write("tiny.cfg", base_ + kStudy + "set = run.measure_training: true if ffn.experts: 4\n");
  ASSERT_EQ(run().code, 0);
  const Outcome table = study({"table", "tiny.cfg", "--markdown"});
  const std::string heading = table.line("| ffn.experts |");
  EXPECT_TRUE(testing::internal::RE::PartialMatch(heading, "M_A % [|] +best [|] +ETT [|]$")) << table;
  EXPECT_TRUE(testing::internal::RE::PartialMatch(table.line("| 1 "), "[|] +- [|] +- [|] +- [|]$")) << table;
  EXPECT_TRUE(testing::internal::RE::PartialMatch(table.line("| 4 "), "[+]- [0-9.]+ [|] +[0-9.]+ [|] +[0-9.]+ "))
      << table;
  EXPECT_EQ(heading.find("G_A"), std::string::npos) << "nothing was kept for validation";
  expect_part(table.out, "M_A: best accuracy on the training split");

  ASSERT_EQ(study({"collect", "tiny.cfg", "--output", "all.h5"}).code, 0);
  const std::vector<double> accuracy = numbers(path("all.h5"), "table/memorisation_accuracy", 4),
                            epoch = numbers(path("all.h5"), "table/memorisation_epoch", 4);
  EXPECT_TRUE(std::isnan(accuracy[0]) && std::isnan(epoch[1])) << "not measured";
  EXPECT_GT(accuracy[2], 0);
  EXPECT_GE(epoch[3], 1);
  EXPECT_TRUE(std::isnan(numbers(path("all.h5"), "table/generalisation_accuracy", 4)[3]));
}

TEST_F(StudyProgram, PlanCountsAndMeasures) {
  const Outcome counted = study({"plan", "tiny.cfg", "--no-measure"});
  EXPECT_EQ(counted.code, 0) << counted;
  expect_part(counted.out, "tiny: 4 runs, ");
  // Of four experts a token visits one: what is more is the rounding of a batch's shares.
  const auto flop = [&](const std::string& name) {
    std::istringstream line(counted.line(name + " "));
    std::string ranks, threads, steps;
    double value = 0;
    line >> ranks >> threads >> steps >> value;
    return value;
  };
  EXPECT_GT(flop("experts1-seed1"), 0) << counted;
  EXPECT_LT(flop("experts4-seed1"), 1.01 * flop("experts1-seed1")) << counted;
  EXPECT_FALSE(fs::exists(path("runs"))) << "a plan leaves nothing behind";
  const Outcome measured = study({"plan", "tiny.cfg"});
  EXPECT_EQ(measured.code, 0) << measured;
  expect_part(measured.out, "one after another");
  EXPECT_FALSE(fs::exists(path("runs")));
}

// A plan needs only the size of the images.
TEST_F(StudyProgram, DataThatAreNotThereAreToldOnceBeforeAnyRun) {
  const Words elsewhere = {"tiny.cfg", "--data.kind",   "cifar10", "--model.patch", "8", "--data.path",
                           "nowhere",  "--train.batch", "48"};
  const Outcome outcome = study(Words{"run"} + elsewhere);
  EXPECT_EQ(outcome.code, 2) << outcome;
  EXPECT_EQ(outcome.out, "");
  expect_part(outcome.err, "nowhere: there is no such folder; data.kind = cifar10");
  EXPECT_FALSE(fs::exists(path("runs"))) << "nor is the folder taken";
  const Outcome plan = study(Words{"plan", "--no-measure"} + elsewhere);
  EXPECT_EQ(plan.code, 0) << plan;
  expect_part(plan.line("before it can run: "), "nowhere: there is no such folder");
}

TEST_F(StudyProgram, ItsKeysWinOverRulesAndAnotherLengthIsNamed) {
  folder_.write("tiny.cfg", base_ + kStudy + "set = run.epochs: 2; train.schedule: constant if ffn.experts: 1\n");
  const Words shorter = {"--run.seed", "1", "--run.epochs", "1", "--ffn.experts", "1"};
  ASSERT_EQ(run(shorter).code, 0);
  expect_part(log_of("experts1-seed1"), "epoch 1/1 ");
  EXPECT_EQ(study(Words{"status", "runs/tiny"}).line("experts1-seed1 ").find("pending"), std::string::npos);
  const Outcome longer = run({"--run.seed", "1", "--ffn.experts", "1"});
  EXPECT_EQ(longer.code, 2) << longer;
  expect_part(longer.err, "its run experts1-seed1 is another one (run.epochs: 1 -> 2)");
}

TEST_F(StudyProgram, Mistakes) {
  const auto refuses = [&](const Words& words, int code, const std::string& part) {
    const Outcome outcome = study(words);
    EXPECT_EQ(outcome.code, code) << outcome;
    expect_part(outcome.err, part);
  };
  refuses({"walk", "tiny.cfg"}, 2, "there are plan, run, submit");
  refuses({"run"}, 2, "the study's file or folder is missing");
  refuses({"run", "none.cfg"}, 2, "none.cfg: cannot read");
  refuses({"status", "."}, 2, "holds no study");
  refuses({"run", "small.cfg"}, 2, "has no section [study]");
  refuses({"run", "tiny.cfg", "--jobs", "0"}, 2, "--jobs 0");
  refuses({"run", "tiny.cfg", "--ranks", "3"}, 2, "its run experts1-seed1: 3 ranks cannot share");
  refuses({"collect", "tiny.cfg"}, 2, "--output");
  const Outcome trained = Program::run(1, {"train", "--config", "tiny.cfg"});
  EXPECT_EQ(trained.code, 2) << trained;
  expect_part(trained.err, "give it to `switchyard study`");
  const Outcome launcher = run({"--only", "0", "--launcher", "no-such-program {ranks}"});
  EXPECT_EQ(launcher.code, 1) << launcher;
  expect_part(launcher.out, "no-such-program: cannot be started");
  const Outcome another = run({"--only", "0", "--launcher", "none-either {ranks}"});
  expect_part(another.out, "none-either: cannot be started");
  EXPECT_EQ(another.out.find("no-such-program"), std::string::npos) << "the last try's lines alone\n" << another;
  const Outcome submit =
      Running({"sh", "-c", std::string("PATH=/nowhere exec '") + SWITCHYARD_PROGRAM + "' study submit tiny.cfg"},
              folder_.path())
          .wait();
  EXPECT_EQ(submit.code, 1) << submit;
  expect_part(submit.err, "no sbatch on the PATH");
  const Outcome inside =
      Running(mpirun(1) + Words{SWITCHYARD_PROGRAM, "study", "list", "tiny.cfg"}, folder_.path()).wait();
  EXPECT_EQ(inside.code, 2) << inside;
  expect_part(inside.err, "run it without mpirun");
}

TEST_F(StudyProgram, SubmitHandsSbatchWhatIsNotDone) {
  ASSERT_EQ(run({"--only", "1"}).code, 0);
  folder_.write("sbatch", "#!/bin/sh\necho \"sbatch got $* for $SWITCHYARD\"\n");
  fs::permissions(path("sbatch"), fs::perms::owner_all);
  folder_.write("job.sh", "");
  const Words words = {
      "sh", "-c",
      std::string("PATH=.:$PATH exec '") + SWITCHYARD_PROGRAM + "' study submit tiny.cfg --script job.sh --ranks 2"};
  const Outcome submit = Running(words, folder_.path()).wait();
  EXPECT_EQ(submit.code, 0) << submit;
  expect_part(
      submit.out,
      "sbatch got --array=0,2-3 --ntasks=2 --cpus-per-task=1 job.sh tiny.cfg --ranks 2 for " SWITCHYARD_PROGRAM);
  ASSERT_EQ(train(1, {"--run.out", "runs/tiny", "--run.name", "experts4-seed1"}).code, 0);
  const Outcome foreign = Running(words, folder_.path()).wait();
  EXPECT_EQ(foreign.code, 2) << foreign;
  expect_part(foreign.err, "runs/tiny/experts4-seed1 holds a run of another configuration");
}

}  // namespace
}  // namespace switchyard::test
