// What a run reports is in its file: while it runs, after it, and after it was killed.
#include "io/results.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <hdf5.h>

#include "io/schema.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

using namespace std::chrono_literals;

constexpr ResultsShape kShape = {2, 3, 1, 4};
constexpr ResultsShape kOldShape = {2, 3, 0, 0};  // the same before there were trees
const std::map<std::string, std::string> kAttributes = {
    {"config", "[run]\nname = a\n"}, {"host", "node-1"}, {"digest", ""}, {"status", "running"}};

// Rows whose every field follows from the step.
StepRow step_row(Index step) {
  const double s = static_cast<double>(step);
  return {.step = step,
          .epoch = s / 100,
          .loss = 1 / s,
          .balance_loss = s + 0.1,
          .z_loss = s + 0.15,
          .importance_loss = s + 0.16,
          .load_loss = s + 0.17,
          .consistency_loss = s + 0.18,
          .hardening_loss = s + 0.19,
          .accuracy = s + 0.2,
          .learning_rate = s + 0.3,
          .gradient_norm = s + 0.4,
          .samples_per_second = s + 0.5,
          .seconds = s + 0.6,
          .seconds_compute = s + 0.7,
          .seconds_exchange = s + 0.8,
          .seconds_reduce = s + 0.9,
          .seconds_wait = s + 1};
}
EvaluationRow evaluation_row(Index step) {
  return {.step = step,
          .epoch = 1.5,
          .loss = 0.25,
          .accuracy = 0.875,
          .validation_loss = 0.5,
          .validation_accuracy = 0.75,
          .seconds = 2.0};
}
TreeRow tree_row(Index step) {
  const float s = static_cast<float>(step);
  return {.step = step, .entropy = {s, 0.5f, 0.25f}, .share = {0, 0.5f, 0.25f, s}};
}
RoutingRow routing_row(Index step) {
  const float s = static_cast<float>(step);
  return {.step = step,
          .load = {s, 1, 2, 3, 4, 5},
          .dropped = {s, 0, 0, 0, 0, 2},
          .weight = {s / 2, 1, 1, 1, 0, 0.5f},
          .load_cv = {0.25f, s},
          .max_over_mean = {s, 2},
          .load_entropy = {0.5f, 1.0f},
          .gate_entropy = {0.125f, s},
          .dead_experts = {0, s / 4}};
}

void append_steps(ResultsWriter& writer, Index first, Index last) {
  for (Index step = first; step <= last; ++step) {
    writer.append(step_row(step));
    writer.append(routing_row(step));
    writer.append(tree_row(step));
  }
}

// A whole column, read by HDF5 alone.
std::vector<double> column(const std::filesystem::path& path, const char* name) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  const hid_t space = H5Dget_space(dataset);
  std::vector<double> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
  H5Sclose(space);
  H5Dclose(dataset);
  H5Fclose(file);
  return values;
}

// Steps 1 to `last`, none twice, none missing, each with its own values.
void expect_steps(const std::filesystem::path& path, Index last) {
  const auto steps = column(path, "steps/step"), loss = column(path, "steps/loss"),
             wait = column(path, "steps/seconds_wait"), consistency = column(path, "steps/consistency_loss");
  const auto load = column(path, "routing/load"), routing_steps = column(path, "routing/step");
  ASSERT_EQ(steps.size(), static_cast<std::size_t>(last));
  ASSERT_EQ(routing_steps, steps);
  ASSERT_EQ(load.size(), steps.size() * 6);
  const auto entropy = column(path, "trees/entropy"), share = column(path, "trees/share");
  ASSERT_EQ(column(path, "trees/step"), steps);
  ASSERT_EQ(entropy.size(), steps.size() * 3);
  ASSERT_EQ(share.size(), steps.size() * 4);
  for (Index i = 0; i < last; ++i) {
    const auto at = static_cast<std::size_t>(i);
    ASSERT_EQ(steps[at], double(i + 1));
    ASSERT_EQ(loss[at], step_row(i + 1).loss);
    ASSERT_EQ(wait[at], step_row(i + 1).seconds_wait);
    ASSERT_EQ(consistency[at], step_row(i + 1).consistency_loss);
    ASSERT_EQ(load[6 * at], double(i + 1));
    ASSERT_EQ(load[6 * at + 5], 5.0);
    ASSERT_EQ(entropy[3 * at], double(i + 1));
    ASSERT_EQ(share[4 * at + 3], double(i + 1));
  }
}

void expect_row(const RoutingRow& row, const RoutingRow& expected) {
  EXPECT_EQ(row.step, expected.step);
  EXPECT_EQ(row.load, expected.load);
  EXPECT_EQ(row.dropped, expected.dropped);
  EXPECT_EQ(row.weight, expected.weight);
  EXPECT_EQ(row.load_cv, expected.load_cv);
  EXPECT_EQ(row.max_over_mean, expected.max_over_mean);
  EXPECT_EQ(row.load_entropy, expected.load_entropy);
  EXPECT_EQ(row.gate_entropy, expected.gate_entropy);
  EXPECT_EQ(row.dead_experts, expected.dead_experts);
}

// Turns a file into one that an older program could have written.
void make_older(const std::filesystem::path& path, std::int64_t version) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t attribute = H5Aopen(file, schema::kSchemaVersion, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &version);
  H5Aclose(attribute);
  const auto remove_later = [&](const auto& columns) {
    for (const schema::Column& column : columns)
      if (column.since > version) H5Ldelete(file, column.path, H5P_DEFAULT);
  };
  remove_later(schema::kStepsColumns);
  remove_later(schema::kEvaluationsColumns);
  remove_later(schema::kRoutingExpertColumns);
  remove_later(schema::kRoutingLayerColumns);
  H5Ldelete(file, "trees", H5P_DEFAULT);
  H5Fclose(file);
}

// Ten steps and an evaluation, as an older program could have written them.
std::filesystem::path older_results(const TemporaryFolder& folder, std::int64_t version) {
  const std::filesystem::path path = folder / "results.h5";
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    append_steps(writer, 1, 10);
    writer.append(evaluation_row(10));
  }
  make_older(path, version);
  return path;
}

TEST(Results, RowsComeBack) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    append_steps(writer, 1, 3000);
    writer.append(evaluation_row(1500));
    writer.append(evaluation_row(3000));
    writer.set_attribute("digest", "0123456789abcdef0123456789abcdef");
    writer.close();
  }
  expect_steps(path, 3000);
  const ResultsSummary summary = describe_results(path);
  ASSERT_TRUE(summary.readable) << summary.problem;
  EXPECT_FALSE(summary.unfinished);
  EXPECT_EQ(summary.schema_version, schema::kResultsVersion);
  EXPECT_EQ(summary.shape, kShape);
  EXPECT_EQ(summary.num_steps, 3000);
  EXPECT_EQ(summary.last_step->seconds_wait, step_row(3000).seconds_wait);
  ASSERT_EQ(summary.evaluations.size(), 2u);
  EXPECT_EQ(summary.evaluations[1].step, 3000);
  EXPECT_EQ(summary.evaluations[1].accuracy, 0.875);
  EXPECT_EQ(summary.evaluations[1].validation_accuracy, 0.75);
  EXPECT_TRUE(std::isnan(summary.evaluations[1].training_accuracy)) << "not measured";
  EXPECT_EQ(summary.evaluations[1].seconds, 2.0);
  EXPECT_EQ(summary.last_step->hardening_loss, step_row(3000).hardening_loss);
  auto attributes = kAttributes;
  attributes["digest"] = "0123456789abcdef0123456789abcdef";
  EXPECT_EQ(summary.attributes, attributes);
}

TEST(Results, ARunWithoutMixtureOrTreeHasNoRowsOfThem) {
  const TemporaryFolder folder;
  ResultsWriter writer = ResultsWriter::create(folder / "results.h5", {}, {});
  EXPECT_THROW(writer.append(routing_row(1)), Error);
  EXPECT_THROW(writer.append(tree_row(1)), Error);
  writer.append(step_row(1));
  writer.close();
  const ResultsSummary summary = describe_results(folder / "results.h5");
  EXPECT_TRUE(summary.readable);
  EXPECT_EQ(summary.shape, ResultsShape{});
  EXPECT_EQ(summary.num_steps, 1);
}

TEST(Results, RoutingComesBackWholeOrInPart) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
  EXPECT_TRUE(read_routing(path).empty());
  for (Index step = 10; step <= 3000; step += 10) writer.append(routing_row(step));
  writer.flush();
  for (const bool closed : {false, true}) {
    if (closed) writer.close();
    const std::vector<RoutingRow> all = read_routing(path);
    ASSERT_EQ(all.size(), 300u);
    for (std::size_t i = 0; i < all.size(); ++i) expect_row(all[i], routing_row(10 * (static_cast<Index>(i) + 1)));
    const auto steps = [&](const RowRange& range) {
      std::vector<Index> found;
      for (const RoutingRow& row : read_routing(path, range)) {
        found.push_back(row.step);
        expect_row(row, routing_row(row.step));
      }
      return found;
    };
    EXPECT_EQ(steps({.first_step = 20, .last_step = 40}), (std::vector<Index>{20, 30, 40}));
    EXPECT_EQ(steps({.first_step = 21, .last_step = 39}), (std::vector<Index>{30}));
    EXPECT_EQ(steps({.first_step = 21, .last_step = 29}), (std::vector<Index>{}));
    EXPECT_EQ(steps({.first_step = 2981}), (std::vector<Index>{2990, 3000}));
    EXPECT_EQ(steps({.most = 2}), (std::vector<Index>{2990, 3000}));
    EXPECT_EQ(steps({.last_step = 100, .most = 2}), (std::vector<Index>{90, 100}));
    EXPECT_EQ(steps({.first_step = 3001}), (std::vector<Index>{}));
    EXPECT_EQ(steps({.first_step = 50, .last_step = 20}), (std::vector<Index>{}));
  }
}

TEST(Results, ARowOfAnotherShapeIsRefused) {
  const TemporaryFolder folder;
  ResultsWriter writer = ResultsWriter::create(folder / "results.h5", {}, kShape);
  RoutingRow row = routing_row(1);
  row.dropped.resize(2);
  EXPECT_TRUE(
      contains(message_of([&] { writer.append(row); }), "routing/dropped has 2 numbers; the file has 2 layers"));
  row = routing_row(1);
  row.gate_entropy.clear();
  EXPECT_TRUE(contains(message_of([&] { writer.append(row); }), "routing/gate_entropy has 0 numbers"));
  TreeRow tree = tree_row(1);
  tree.entropy.push_back(0);
  EXPECT_TRUE(
      contains(message_of([&] { writer.append(tree); }), "trees/entropy has 4 numbers; the file has 1 layers of 3"));
}

TEST(ResultsOfVersion1, AreDescribedButNeitherContinuedNorReadForRouting) {
  const TemporaryFolder folder;
  const std::filesystem::path path = older_results(folder, 1);
  const ResultsSummary summary = describe_results(path);
  ASSERT_TRUE(summary.readable) << summary.problem;
  EXPECT_EQ(summary.schema_version, 1);
  EXPECT_EQ(summary.num_steps, 10);
  EXPECT_EQ(summary.shape, kOldShape);
  EXPECT_EQ(summary.last_step->balance_loss, step_row(10).balance_loss);
  EXPECT_EQ(summary.last_step->z_loss, 0);
  EXPECT_EQ(summary.last_step->accuracy, step_row(10).accuracy);
  EXPECT_EQ(summary.last_step->seconds_wait, step_row(10).seconds_wait);
  EXPECT_EQ(summary.evaluations.size(), 1u);
  const std::string old = path.string() + ": written by an older program (schema version 1";
  EXPECT_TRUE(contains(message_of([&] { read_routing(path); }), old));
  const std::string message = message_of([&] { ResultsWriter::reopen(path, 10, {}, kShape); });
  EXPECT_TRUE(contains(message, old)) << message;
  EXPECT_TRUE(contains(message, "move it away to resume without its rows: new ones start after step 10")) << message;
}

TEST(ResultsOfVersion2, AreReadAsTheyAreButNotContinued) {
  const TemporaryFolder folder;
  const std::filesystem::path path = older_results(folder, 2);
  const ResultsSummary summary = describe_results(path);
  ASSERT_TRUE(summary.readable) << summary.problem;
  EXPECT_EQ(summary.schema_version, 2);
  EXPECT_EQ(summary.shape, kOldShape);
  EXPECT_EQ(summary.last_step->consistency_loss, step_row(10).consistency_loss);
  EXPECT_EQ(summary.last_step->hardening_loss, 0);
  EXPECT_EQ(summary.last_step->accuracy, step_row(10).accuracy);
  ASSERT_EQ(summary.evaluations.size(), 1u);
  EXPECT_EQ(summary.evaluations[0].accuracy, 0.875);
  EXPECT_EQ(summary.evaluations[0].seconds, 2.0);
  EXPECT_TRUE(std::isnan(summary.evaluations[0].validation_accuracy));
  const std::vector<RoutingRow> routing = read_routing(path);
  ASSERT_EQ(routing.size(), 10u);
  expect_row(routing[9], routing_row(10));
  const std::string message = message_of([&] { ResultsWriter::reopen(path, 10, {}, kShape); });
  EXPECT_TRUE(contains(message, "written by an older program (schema version 2")) << message;
}

TEST(Results, AnAttributeCanBeSetOnlyWhereItWasMadeAndFits) {
  const TemporaryFolder folder;
  ResultsWriter writer = ResultsWriter::create(folder / "results.h5", kAttributes, {});
  EXPECT_TRUE(contains(message_of([&] { writer.set_attribute("new", "x"); }), "without an attribute new"));
  EXPECT_TRUE(contains(message_of([&] { writer.set_attribute("host", std::string(65, 'x')); }), "room for 64"));
  writer.set_attribute("status", "complete");
  writer.close();
  EXPECT_EQ(describe_results(folder / "results.h5").attributes.at("status"), "complete");
}

TEST(ResultsInPython, ReadWhileTheRunGoesOn) {
  const TemporaryFolder folder;
  const std::string path = folder / "results.h5";
  ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
  append_steps(writer, 1, 5);
  writer.flush();
  const auto read = [&] {
    return h5py("import h5py; f = h5py.File(\"" + path +
                "\", \"r\", swmr=True); print(f[\"steps/step\"][:].tolist(), f[\"routing/load\"].shape)");
  };
  const auto early = read();
  if (!early) GTEST_SKIP() << "no python3 with h5py here";
  EXPECT_EQ(*early, "[1, 2, 3, 4, 5] (5, 2, 3)\n");
  append_steps(writer, 6, 7);
  writer.flush();
  EXPECT_EQ(*read(), "[1, 2, 3, 4, 5, 6, 7] (7, 2, 3)\n");
}

TEST(ResultsInPython, EveryDatasetHasUnitsAndIsReadPlainly) {
  const TemporaryFolder folder;
  const std::string path = folder / "results.h5";
  ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
  append_steps(writer, 1, 2);
  writer.close();
  const auto output = h5py("import h5py; f = h5py.File(\"" + path + R"x(")
print(f["steps/loss"][:].tolist(), f["config"][()].decode().split())
print(f.attrs["format"].decode(), int(f.attrs["schema_version"]), f.attrs["host"].decode(), f.attrs["digest"])
for group in f:
  if group != "config":
    print(group, " ".join(n + "/" + d.attrs["units"].decode() + "/" + str(d.dtype) for n, d in f[group].items()))
)x");
  if (!output) GTEST_SKIP() << "no python3 with h5py here";
  EXPECT_EQ(*output,
            "[1.0, 0.5] ['[run]', 'name', '=', 'a']\n"
            "switchyard-results 3 node-1 b''\n"
            "evaluations accuracy/1/float64 epoch/epochs/float64 loss/nats/float64 seconds/s/float64 step/steps/int64 "
            "training_accuracy/1/float64 training_loss/nats/float64 validation_accuracy/1/float64 "
            "validation_loss/nats/float64\n"
            "routing dead_experts/1/float32 dropped/tokens/float32 gate_entropy/nats/float32 load/tokens/float32 "
            "load_cv/1/float32 load_entropy/nats/float32 max_over_mean/1/float32 step/steps/int64 weight/1/float32\n"
            "steps accuracy/1/float64 balance_loss/1/float64 consistency_loss/1/float64 epoch/epochs/float64 "
            "gradient_norm/1/float64 hardening_loss/1/float64 importance_loss/1/float64 learning_rate/1/float64 "
            "load_loss/1/float64 "
            "loss/nats/float64 samples_per_second/1/s/float64 seconds/s/float64 seconds_compute/s/float64 "
            "seconds_exchange/s/float64 seconds_reduce/s/float64 seconds_wait/s/float64 step/steps/int64 "
            "z_loss/1/float64\n"
            "trees entropy/nats/float32 share/1/float32 step/steps/int64\n");
}

TEST(ResultsReopened, RowsAfterTheStepAreCutAndNewOnesFollow) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    append_steps(writer, 1, 2500);
    writer.append(evaluation_row(2000));
    writer.append(evaluation_row(2500));
  }
  {
    ResultsWriter writer = ResultsWriter::reopen(path, 2200, {{"host", "node-2"}}, kShape);
    append_steps(writer, 2201, 2300);
  }
  expect_steps(path, 2300);
  const ResultsSummary summary = describe_results(path);
  EXPECT_EQ(summary.evaluations.size(), 1u);
  EXPECT_EQ(summary.attributes.at("host"), "node-2");
  EXPECT_EQ(summary.attributes.at("config"), kAttributes.at("config"));
  EXPECT_FALSE(std::filesystem::exists(folder / "results.h5.tmp"));
}

// The checkpoint that the run goes on from knows nothing of an evaluation after its step, which a run that was killed
// had made since.
TEST(ResultsReopened, AnEvaluationThatIsMadeAgainHasOneRow) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    append_steps(writer, 1, 10);
    writer.append(evaluation_row(5));
    writer.append(evaluation_row(10));
  }
  ResultsWriter::reopen(path, 10, kAttributes, kShape, false).append(evaluation_row(10));
  expect_steps(path, 10);
  const ResultsSummary summary = describe_results(path);
  ASSERT_EQ(summary.evaluations.size(), 2u);
  EXPECT_EQ(summary.evaluations[1].step, 10);
}

// Each once, in the order that they came; also where the run goes on without a GPU, or had none before.
TEST(ResultsReopened, AlgorithmsComeBackAndNewOnesFollow) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  const std::string longest(256, 'x');
  ResultsShape on_gpu = kShape;
  on_gpu.has_algorithms = true;
  const auto reopen = [&](const ResultsShape& shape) { return ResultsWriter::reopen(path, 1, kAttributes, shape); };
  using Lines = std::vector<std::string>;
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    append_steps(writer, 1, 1);
    EXPECT_TRUE(contains(message_of([&] { writer.append_algorithms({"a"}); }), "without a GPU"));
  }
  EXPECT_EQ(read_algorithms(path), Lines{});
  {
    ResultsWriter writer = reopen(on_gpu);
    writer.append_algorithms({"b", "a"});
    EXPECT_EQ(read_algorithms(path), (Lines{"b", "a"}));  // while it is written
    writer.append_algorithms({"a", longest + "y", "b"});
  }
  EXPECT_EQ(read_algorithms(path), (Lines{"b", "a", longest}));
  reopen(kShape).append_algorithms({longest + "z", "c"});
  EXPECT_EQ(read_algorithms(path), (Lines{"b", "a", longest, "c"}));
}

TEST(ResultsReopened, AFileThatDoesNotFitOrIsBeyondRepairIsNamedAndKept) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  const auto reopen = [&](ResultsShape shape) {
    return message_of([&] { ResultsWriter::reopen(path, 10, {}, shape); });
  };
  EXPECT_TRUE(contains(reopen(kShape), "no such file"));
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    append_steps(writer, 1, 10);
  }
  EXPECT_TRUE(contains(reopen({2, 4, 1, 4}), "2 layers with 3 experts"));
  expect_steps(path, 10);
  const std::string bytes = bytes_of(path);
  write_bytes(path, bytes.substr(0, bytes.size() / 2));
  EXPECT_TRUE(contains(reopen(kShape), "cut short"));
  EXPECT_TRUE(contains(reopen(kShape), "move it away to resume without its rows: new ones start after step 10"));
  EXPECT_FALSE(describe_results(path).readable);
  write_bytes(path, "not at all");
  EXPECT_TRUE(contains(reopen(kShape), "not an HDF5 file"));
  EXPECT_TRUE(contains(reopen(kShape), "move it away"));
  EXPECT_EQ(bytes_of(path), "not at all");
}

// Killed at any moment, while it writes all the time.
TEST(ResultsKilled, TheFileIsReadMeanwhileAndGoneOnWith) {
  for (const auto delay : {0ms, 1ms, 3ms, 10ms, 30ms, 100ms}) {
    const TemporaryFolder folder;
    const auto path = folder / "results.h5";
    const pid_t child = fork();
    if (child == 0) {
      ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
      for (Index step = 1;; ++step) {
        append_steps(writer, step, step);
        writer.flush();
      }
    }
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    ResultsSummary meanwhile;
    while (meanwhile.num_steps < 20) {
      ASSERT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "the writer ended by itself";
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << meanwhile.problem;
      meanwhile = describe_results(path);
    }
    EXPECT_TRUE(meanwhile.unfinished);
    std::this_thread::sleep_for(delay);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);

    const ResultsSummary after = describe_results(path);
    ASSERT_TRUE(after.readable) << after.problem;
    EXPECT_TRUE(after.unfinished);
    EXPECT_GE(after.num_steps, meanwhile.num_steps);
    const Index keep = after.num_steps - 3;
    {
      ResultsWriter writer = ResultsWriter::reopen(path, keep, {}, kShape);
      append_steps(writer, keep + 1, keep + 50);
    }
    expect_steps(path, keep + 50);
    EXPECT_FALSE(describe_results(path).unfinished);
  }
}

// Makes each further write of this process to a file fail.
void break_writes(const std::filesystem::path& path) {
  const int unwritable = open(path.c_str(), O_RDONLY);
  for (int fd = 3; fd < 256; ++fd) {
    std::error_code closed;
    if (fd != unwritable && std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), closed) == path)
      dup2(unwritable, fd);
  }
}

// The disk fails in the middle of a write, for which no room can be reserved: HDF5 itself would crash at the end.
TEST(ResultsDiskFailure, IsAnErrorNotACrashAndLeavesTheRowsBefore) {
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  const pid_t child = fork();
  if (child == 0) {
    int num_errors = 0;
    {
      ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
      append_steps(writer, 1, 100);
      writer.flush();
      // HDF5 opened it by its temporary name, which Linux shows as it is now.
      break_writes(path);
      append_steps(writer, 101, 3000);
      num_errors += contains(message_of([&] { writer.flush(); }), "Bad file descriptor");
      num_errors += !message_of([&] { writer.flush(); }).empty();
    }
    exit(num_errors);  // with HDF5's own work at the end
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 2);
  const ResultsSummary summary = describe_results(path);
  EXPECT_TRUE(summary.readable) << summary.problem;
  EXPECT_EQ(summary.num_steps, 100);
}

TEST(ResultsDiskFull, NothingWrittenIsLostAndTheRestCanBeTriedAgain) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const TemporaryFolder folder;
  const auto path = folder / "results.h5";
  ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
  append_steps(writer, 1, 100);
  writer.flush();
  const rlimit limit{std::filesystem::file_size(path) + 1000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  append_steps(writer, 101, 2000);
  const std::string message = message_of([&] { writer.flush(); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(contains(message, path.string()) && contains(message, "no room for another")) << message;
  writer.flush();
  writer.close();
  expect_steps(path, 2000);
}

TEST(ResultsDiskFull, AFullFileSystemLeavesAReadableFile) {
  const TemporaryFolder folder;
  const auto volume = folder / "volume", path = volume / "results.h5";
  std::filesystem::create_directory(volume);
  if (mount("none", volume.c_str(), "tmpfs", 0, "size=3m") != 0) GTEST_SKIP() << "may not mount a file system here";
  Index written = 0;
  std::string message;
  {
    ResultsWriter writer = ResultsWriter::create(path, kAttributes, kShape);
    while (message.empty() && written < 1'000'000) {
      append_steps(writer, written + 1, written + 500);
      message = message_of([&] { writer.flush(); });
      if (message.empty()) written += 500;
    }
    EXPECT_TRUE(contains(message, "No space left on device")) << message;
    EXPECT_TRUE(contains(message_of([&] { writer.close(); }), "No space left on device"));
  }
  EXPECT_GT(written, 2000);
  expect_steps(path, written);
  EXPECT_TRUE(contains(message_of([&] { ResultsWriter::reopen(path, written, {}, kShape); }), "No space left"));
  expect_steps(path, written);
  EXPECT_FALSE(std::filesystem::exists(volume / "results.h5.tmp"));
  write_bytes(volume / "filler", std::string(3 << 20, 'x'));
  EXPECT_TRUE(contains(message_of([&] { ResultsWriter::create(volume / "other.h5", {}, kShape); }), "No space left"));
  EXPECT_FALSE(std::filesystem::exists(volume / "other.h5"));
  EXPECT_EQ(umount2(volume.c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace switchyard::io::testing
