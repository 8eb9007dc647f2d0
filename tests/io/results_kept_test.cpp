// A results file keeps what people wrote into it, and comes back where somebody removed it.
#include <filesystem>

#include "io/results.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

namespace fs = std::filesystem;

constexpr ResultsShape kShape = {2, 3, 0, 0};
const ResultsWriter::Attributes kAttributes = {
    {"config", "[run]\nname = a\n"}, {"host", "node-1"}, {"status", "running"}};

void append_steps(ResultsWriter& writer, Index first, Index last) {
  for (Index step = first; step <= last; ++step) {
    writer.append(StepRow{.step = step, .loss = 1 / static_cast<double>(step)});
    writer.append(RoutingRow{step,
                             std::vector<float>(6, 1),
                             std::vector<float>(6),
                             std::vector<float>(6),
                             {1, 2},
                             {1, 1},
                             {0, 0},
                             {0, 0},
                             {0, 0}});
  }
}

class KeptResults : public ::testing::Test {
 protected:
  // A program that has the file open as f. Fails the test where it fails.
  std::string with_h5py(const std::string& mode, const std::string& program) {
    const auto output =
        h5py("import h5py\nwith h5py.File(\"" + path_.string() + "\", \"" + mode + "\") as f:\n" + program);
    EXPECT_TRUE(output) << "no python3 with h5py here";
    return output.value_or("");
  }
  Index num_steps() const { return describe_results(path_).num_steps; }

  TemporaryFolder folder_;
  fs::path path_ = folder_ / "results.h5";
};

TEST_F(KeptResults, WhatPeopleWroteStaysWhenTheRunGoesOn) {
  {
    ResultsWriter writer = ResultsWriter::create(path_, kAttributes, kShape);
    append_steps(writer, 1, 10);
  }
  EXPECT_EQ(with_h5py("a", R"(
    f.attrs["note"] = "keep, é"
    f.attrs["number"] = 3.5
    f.attrs["texts"] = ["a", "bc"]
    f.attrs["empty"] = h5py.Empty("f4")
    f["my/deep/extra"] = [1, 2, 3]
    f["my/deep"].attrs["unit"] = "m"
    f["steps/mine"] = [[0.5, 1.5]]
    f["steps/loss"].attrs["smoothed"] = True
    f["steps"].attrs["by"] = 7
    f["my/link"] = h5py.SoftLink("/steps/loss")
    f["my/other"] = h5py.ExternalLink("other.h5", "/x")
    f["my/loss"] = f["steps/loss"]
    f["my/same"] = f["my/deep"]
    f["my/top"] = f["/"]
    f.create_dataset("my/packed", data=[7] * 100, chunks=(10,), compression="gzip")
)"),
            "");
  const std::string check = R"(
    assert f.attrs["note"] == "keep, é" and f.attrs["number"] == 3.5 and list(f.attrs["texts"]) == ["a", "bc"]
    assert f.attrs["empty"] == h5py.Empty("f4")
    assert list(f["my/deep/extra"]) == [1, 2, 3] and f["my/deep"].attrs["unit"] == "m"
    assert f["steps/mine"][0, 1] == 1.5 and f["steps/loss"].attrs["smoothed"] and f["steps"].attrs["by"] == 7
    assert f.get("my/link", getlink=True).path == "/steps/loss"
    assert f.get("my/other", getlink=True).filename == "other.h5"
    assert f["my/loss"] == f["steps/loss"] and f["my/same"] == f["my/deep"] and f["my/top"] == f["/"]
    assert set(f) == {"config", "steps", "evaluations", "routing", "my"}
    assert list(f["my/packed"]) == [7] * 100 and f["my/packed"].compression == "gzip"
    print(f.attrs["host"].decode(), len(f["steps/step"]), len(f["my/link"]))
)";
  {
    ResultsWriter writer = ResultsWriter::reopen(path_, 5, {{"host", "node-2"}}, kShape);
    append_steps(writer, 6, 7);
    EXPECT_TRUE(writer.take_warnings().empty());
  }
  EXPECT_EQ(with_h5py("r", check), "node-2 7 7\n");
  ResultsWriter::reopen(path_, 7, {{"host", "node-3"}}, kShape).close();
  EXPECT_EQ(with_h5py("r", check), "node-3 7 7\n") << "also the second time";
}

// Of all that h5py writes, references to objects cannot be copied; dimension scales have such, too.
TEST_F(KeptResults, WhatCannotBeKeptIsNamed) {
  {
    ResultsWriter writer = ResultsWriter::create(path_, kAttributes, kShape);
    append_steps(writer, 1, 3);
  }
  EXPECT_EQ(with_h5py("a",
                      "    f[\"steps\"].attrs[\"best\"] = f[\"steps/loss\"].ref\n"
                      "    f[\"pointer\"] = f[\"steps/loss\"].ref\n"),
            "");
  ResultsWriter writer = ResultsWriter::reopen(path_, 3, kAttributes, kShape);
  const std::vector<std::string> warnings = writer.take_warnings();
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_TRUE(contains(warnings[0], path_.string() + ": /pointer does not go along")) << warnings[0];
  EXPECT_TRUE(contains(warnings[1], path_.string() + ": /steps@best does not go along")) << warnings[1];
  EXPECT_TRUE(writer.take_warnings().empty()) << "told once";
}

TEST_F(KeptResults, AFileThatWasRemovedIsWrittenAnewWithAllRows) {
  ResultsWriter writer = ResultsWriter::create(path_, kAttributes, kShape);
  append_steps(writer, 1, 100);
  writer.flush();
  for (const Index last : {200, 300}) {
    append_steps(writer, last - 99, last);
    fs::remove(path_);
    writer.set_attribute("status", fmt::format("after {}", last));
    const std::vector<std::string> warnings = writer.take_warnings();
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_TRUE(contains(warnings[0], path_.string() + ": was removed")) << warnings[0];
    EXPECT_EQ(num_steps(), last);
  }
  append_steps(writer, 301, 310);
  fs::remove(path_);
  writer.close();
  const ResultsSummary summary = describe_results(path_);
  EXPECT_TRUE(summary.readable) << summary.problem;
  EXPECT_EQ(summary.num_steps, 310);
  EXPECT_EQ(summary.attributes.at("status"), "after 300");
  EXPECT_EQ(summary.attributes.at("config"), kAttributes.at("config"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1) << "nothing else is left behind";
}

TEST_F(KeptResults, AFolderThatWasRemovedIsAnError) {
  const fs::path folder = folder_ / "run";
  fs::create_directory(folder);
  ResultsWriter writer = ResultsWriter::create(folder / "results.h5", kAttributes, kShape);
  append_steps(writer, 1, 10);
  fs::remove_all(folder);
  const std::string message = message_of([&] { writer.flush(); });
  EXPECT_TRUE(contains(message, "results.h5: was removed")) << message;
  EXPECT_TRUE(contains(message, "No such file or directory")) << message;
  fs::create_directory(folder);
  writer.close();
  EXPECT_EQ(describe_results(folder / "results.h5").num_steps, 10) << "nothing is lost where there is a folder again";
}

TEST_F(KeptResults, AnotherFileInItsPlaceStays) {
  ResultsWriter writer = ResultsWriter::create(path_, kAttributes, kShape);
  append_steps(writer, 1, 10);
  fs::rename(path_, folder_ / "mine.h5");
  write_bytes(path_, "another");
  const std::string message = message_of([&] { writer.close(); });
  EXPECT_TRUE(contains(message, path_.string() + ": another file has taken its place")) << message;
  EXPECT_EQ(bytes_of(path_), "another");
  EXPECT_TRUE(describe_results(folder_ / "mine.h5").readable);
}

}  // namespace
}  // namespace switchyard::io::testing
