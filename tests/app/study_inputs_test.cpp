// A study's run is done for the data and the checkpoint that it read, wherever these lie: other ones make another run.
#include <fstream>
#include <sstream>

#include "data_files.hpp"
#include "study_program.hpp"

namespace switchyard::test {
namespace {

constexpr int kUsage = 2;

class StudyInputs : public StudyProgram {
 protected:
  // Two dense runs.
  Outcome dense(const std::string& command, const Words& words = {}) {
    return study(Words{command, "tiny.cfg", "--ffn.experts", "1"} + words);
  }
  Outcome on_mnist(const std::string& command, const std::string& folder) {
    return dense(command, {"--data.kind", "mnist", "--model.patch", "7", "--data.path", folder});
  }
  void expect_done(const Outcome& outcome) {
    EXPECT_EQ(outcome.code, 0) << outcome;
    expect_part(outcome.out, "2 runs, 2 done");
  }
  // Data of the same shape, one label of the training split another one.
  void change_a_label(const std::string& folder) {
    std::string labels = idx_labels(100);
    std::swap(labels[8 + 41], labels[8 + 42]);
    write_gzip(path(folder) / "train-labels-idx1-ubyte.gz", labels);
  }
};

TEST_F(StudyInputs, DataThatChangedInPlaceMakeAnotherRun) {
  write_mnist(path("mnist"));
  expect_done(on_mnist("run", "mnist"));
  expect_done(on_mnist("run", "mnist"));
  change_a_label("mnist");

  const Outcome refused = on_mnist("run", "mnist");
  EXPECT_EQ(refused.code, kUsage) << refused;
  for (const char* part : {"runs/tiny/experts1-seed1 holds a run of", "other data", "data_train: 100 samples, XXH3-128",
                           "move it away", "--run.out"})
    expect_part(refused.err, part);
  EXPECT_EQ(refused.err.find("data_test"), std::string::npos) << "that is the same\n" << refused;
  expect_part(on_mnist("status", "mnist").out, "2 foreign");
  const Outcome table = on_mnist("table", "mnist");
  EXPECT_EQ(table.code, 0) << table;
  expect_part(table.out, "0 of 2 done");
  expect_part(table.err, "experts1-seed2 is left out: data_train");
}

TEST_F(StudyInputs, TheSameDataElsewhereAreTheSame) {
  write_mnist(path("mnist"));
  expect_done(on_mnist("run", "mnist"));
  fs::rename(path("mnist"), path("moved"));
  expect_done(on_mnist("run", "moved"));
  write_mnist(path("other"));
  change_a_label("other");
  EXPECT_EQ(on_mnist("run", "other").code, kUsage);
  expect_part(on_mnist("status", "mnist").out, "2 done");  // of data that are gone nobody can tell
}

// After that study.data says what a file held, as long as nothing touches it.
TEST_F(StudyInputs, DataAreReadOnce) {
  write_mnist(path("mnist"));
  expect_done(on_mnist("run", "mnist"));
  expect_part(on_mnist("status", "mnist").out, "2 done");
  const fs::path memory = path("runs/tiny/study.data");
  std::ifstream file(memory);
  std::stringstream text;
  text << file.rdbuf();
  std::string wrong = text.str();
  const std::string before_hash = "data_train 100 samples, XXH3-128 ";
  const std::size_t place = wrong.find(before_hash);
  ASSERT_NE(place, std::string::npos) << wrong;
  char& digit = wrong[place + before_hash.size()];
  digit = digit == '0' ? '1' : '0';
  std::ofstream(memory) << wrong;
  expect_part(on_mnist("status", "mnist").out, "2 foreign");

  fs::last_write_time(path("mnist/train-labels-idx1-ubyte.gz"), fs::file_time_type::clock::now());
  expect_part(on_mnist("status", "mnist").out, "2 done");
  std::ofstream(memory) << "not at all\n\n# such\nlines count";
  expect_part(on_mnist("status", "mnist").out, "2 done");
}

// As of data that are gone: a copy that is not whole yet hides no evidence.
TEST_F(StudyInputs, OfDataThatCannotBeReadNobodyCanTell) {
  write_mnist(path("mnist"));
  expect_done(on_mnist("run", "mnist"));
  std::ofstream(path("mnist/train-images-idx3-ubyte.gz")) << "damaged";
  const Outcome table = on_mnist("table", "mnist");
  expect_part(table.out, "2 of 2 done");
  const std::string warning = "whether runs were made with these data cannot be told: ";
  expect_part(table.err, warning);
  EXPECT_EQ(table.err.find(warning), table.err.rfind(warning)) << "told once";
  expect_part(table.err, "train-images-idx3-ubyte.gz");
}

TEST_F(StudyInputs, AnotherCheckpointBehindTrainStartMakesAnotherRun) {
  const Words dense_model = {"--ffn.kind", "dense", "--run.steps", "2", "--run.name"};
  ASSERT_EQ(train(1, dense_model + Words{"one"}).code, 0);
  ASSERT_EQ(train(1, dense_model + Words{"two", "--run.seed", "7"}).code, 0);
  const auto copy_to_start = [&](const char* name) {
    fs::copy_file(path("runs") / name / "checkpoint-00000002.h5", path("start.h5"),
                  fs::copy_options::overwrite_existing);
  };
  copy_to_start("one");
  const Words from_start = {"--train.start", "start.h5"};
  expect_done(dense("run", from_start));
  expect_done(dense("run", from_start));
  copy_to_start("two");
  const Outcome refused = dense("run", from_start);
  EXPECT_EQ(refused.code, kUsage) << refused;
  expect_part(refused.err, "train.start: parameters of start.h5 after step 2, digest ");
  copy_to_start("one");
  expect_done(dense("run", from_start));
}

}  // namespace
}  // namespace switchyard::test
