// A study of four tiny runs, two of a dense network and two of a mixture.
#pragma once

#include <fstream>
#include <iterator>
#include <memory>

#include "program.hpp"

namespace switchyard::test {

namespace fs = std::filesystem;

inline constexpr const char* kStudy = R"(
[study]
axis = ffn.experts: 1, 4
axis = run.seed: 1..2
set = ffn.kind: dense if ffn.experts: 1
)";

inline void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "missing: " << part << "\nin: " << text;
}

class StudyProgram : public Program {
 protected:
  StudyProgram() {
    std::ifstream small(folder_ / "small.cfg");
    base_ = {std::istreambuf_iterator<char>(small), {}};
    folder_.write("tiny.cfg", base_ + kStudy);
  }

  std::unique_ptr<Running> begin(const Words& words) const {
    const std::map<std::string, std::string> ascii = {{"LC_ALL", "C"}};  // +-
    return std::make_unique<Running>(Words{SWITCHYARD_PROGRAM, "study"} + words, folder_.path(), ascii);
  }
  Outcome study(const Words& words) { return begin(words)->wait(120); }
  Outcome run(const Words& words = {}) { return study(Words{"run", "tiny.cfg"} + words); }

  fs::path run_of(const std::string& name) const { return path("runs/tiny") / name; }
  void expect_state(const std::string& name, const std::string& state) {
    const Outcome status = study({"status", "tiny.cfg"});
    EXPECT_EQ(status.code, 0) << status;
    expect_part(status.line(name + " ").substr(0, 20), state);
  }
  std::string log_of(const std::string& name) const {
    std::ifstream file(run_of(name) / "train.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string base_;
};

}  // namespace switchyard::test
