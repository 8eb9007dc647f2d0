// Mistakes that a user makes, each with what the program has to say about it.
#pragma once

#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "program.hpp"

namespace switchyard::test {

constexpr int kFailure = 1, kUsage = 2, kDiverged = 3;

struct Mistake {
  const char* name;
  Words words;  // after `switchyard`
  int code;
  Words parts;  // of the message: what is wrong, where, what to do
  int ranks = 2;
};

inline std::string name_of(const testing::TestParamInfo<Mistake>& info) { return info.param.name; }

class Mistakes : public Program {
 protected:
  // The command leaves every rank with this code, soon, and says why once: one paragraph on standard error that has
  // all parts. It returns that paragraph.
  std::string expect_message(int ranks, const Words& words, int code, const Words& parts) {
    // A shell around each rank keeps its exit code, of which mpirun reports the first alone; so it must not end the
    // other ranks when one exits.
    const Words keep_code = {"bash", "-c", R"("$@"; code=$?; echo $code >rank-$OMPI_COMM_WORLD_RANK.code; exit $code)",
                             "bash", SWITCHYARD_PROGRAM};
    for (int rank = 0; rank < ranks; ++rank) std::filesystem::remove(code_file(rank));
    Running running(mpirun(ranks) + keep_code + words, folder_.path(),
                    {{"OMPI_MCA_orte_abort_on_non_zero_status", "0"}});
    const Outcome outcome = running.wait(60);
    for (int rank = 0; rank < ranks; ++rank) {
      int found = -1;
      std::ifstream(code_file(rank)) >> found;
      EXPECT_EQ(found, code) << "rank " << rank << "\n" << outcome;
    }
    std::istringstream lines(outcome.err);
    std::string message, line;
    int num_lines = 0;
    while (std::getline(lines, line)) {
      message = line;
      ++num_lines;
    }
    EXPECT_EQ(num_lines, 1) << outcome;
    EXPECT_TRUE(message.starts_with("switchyard: ")) << outcome;
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "missing: " << part << "\n" << outcome;
    return message;
  }
  void expect(const Mistake& mistake) { expect_message(mistake.ranks, mistake.words, mistake.code, mistake.parts); }

 private:
  std::filesystem::path code_file(int rank) const { return path(fmt::format("rank-{}.code", rank)); }
};

}  // namespace switchyard::test
