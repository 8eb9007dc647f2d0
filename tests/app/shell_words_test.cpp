// Words as a shell has them: what a launcher's text comes to.
#include "app/shell_words.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"

namespace switchyard {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& text) { return split_shell_words("--launcher", text); }

TEST(ShellWords, WhiteSpaceSeparates) {
  EXPECT_EQ(split("mpirun  -n\t{ranks}\n"), (Words{"mpirun", "-n", "{ranks}"}));
  EXPECT_EQ(split(""), Words{});
  EXPECT_EQ(split("  "), Words{});
}

TEST(ShellWords, QuotesAndBackslashesKeepIt) {
  EXPECT_EQ(split("'my repo/mpirun.sh' {ranks}"), (Words{"my repo/mpirun.sh", "{ranks}"}));
  EXPECT_EQ(split("my\\ repo/mpirun.sh {ranks}"), (Words{"my repo/mpirun.sh", "{ranks}"}));
  EXPECT_EQ(split("\"my repo\"/mpirun.sh"), Words{"my repo/mpirun.sh"});
  EXPECT_EQ(split("a '' b"), (Words{"a", "", "b"}));
}

TEST(ShellWords, WhatABackslashIsDependsOnTheQuotes) {
  EXPECT_EQ(split(R"(\\ \' \" \n)"), (Words{"\\", "'", "\"", "n"}));
  EXPECT_EQ(split(R"("\\ \" \$ \n")"), Words{R"(\ " $ \n)"});
  EXPECT_EQ(split(R"('\n "')"), Words{R"(\n ")"});
  EXPECT_EQ(split("a\\\nb"), Words{"ab"}) << "a line that goes on";
}

TEST(ShellWords, WhatIsLeftOpenIsRefused) {
  for (const char* text : {"mpirun 'a", "mpirun \"a", "mpirun a\\", "mpirun \"a\\", "mpirun 'it''s'"}) {
    SCOPED_TRACE(text);
    try {
      split(text);
      EXPECT_STREQ(text, "mpirun 'it''s'");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(error.what()).find(std::string("--launcher = ") + text), std::string::npos) << error.what();
    }
  }
}

TEST(ShellWords, ALineIsTheWordsAgain) {
  const Words words = {"plain", "{ranks}", "", "my repo", "it's", "a\"b\\c", "$HOME", "line\nline", "*", "\xc3\xbc"};
  EXPECT_EQ(split(shell_line(words)), words);
  EXPECT_EQ(shell_line({"sbatch", "--array=0-2,5", "my repo/study.sbatch"}),
            "sbatch --array=0-2,5 'my repo/study.sbatch'");
}

}  // namespace
}  // namespace switchyard
