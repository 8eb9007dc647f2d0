// A subcommand's arguments.
#include "config/command_line.hpp"

#include <gtest/gtest.h>

#include <boost/program_options.hpp>

#include "config/test_files.hpp"

namespace switchyard {
namespace {

namespace po = boost::program_options;
using test::expect_error;
using test::TemporaryFolder;

po::options_description own_options() {
  po::options_description own;
  own.add_options()("resume", po::value<std::string>()->implicit_value(""), "")("overwrite", "");
  return own;
}

CommandLine parse(const std::vector<std::string>& arguments, std::size_t max_positional = 0) {
  return parse_command_line(arguments, own_options(), max_positional);
}

TEST(CommandLine, FilesKeysAndOwnOptions) {
  const CommandLine line = parse({"--config", "a.cfg", "--train.batch", "256", "--config=b.cfg", "--train.lr=0.5",
                                  "--resume=/tmp/checkpoint", "--overwrite"});
  EXPECT_EQ(line.files, (std::vector<std::string>{"a.cfg", "b.cfg"}));
  ASSERT_EQ(line.overrides.size(), 2u);
  EXPECT_EQ(line.overrides[0], std::make_pair(std::string("train.batch"), std::string("256")));
  EXPECT_EQ(line.overrides[1], std::make_pair(std::string("train.lr"), std::string("0.5")));
  EXPECT_EQ(line.options["resume"].as<std::string>(), "/tmp/checkpoint");
  EXPECT_EQ(line.options.count("overwrite"), 1u);
  EXPECT_TRUE(line.positional.empty());
}

TEST(CommandLine, OptionalValue) {
  const CommandLine line = parse({"--resume", "--train.lr", "1"});
  EXPECT_EQ(line.options["resume"].as<std::string>(), "");
  EXPECT_EQ(line.overrides.size(), 1u);
  EXPECT_EQ(parse({}).options.count("resume"), 0u);
}

TEST(CommandLine, Positional) {
  EXPECT_EQ(parse({"file.h5", "--train.lr", "1"}, 1).positional, std::vector<std::string>{"file.h5"});
  expect_error(ExitCode::kUsage, {"\"512\"", "belongs to no option"}, [] { parse({"--train.batch", "256", "512"}); });
}

TEST(CommandLine, EmptyNames) {
  expect_error(ExitCode::kUsage, {"command line", "\"\"", "give its name"}, [] { parse({""}, 1); });
  expect_error(ExitCode::kUsage, {"command line", "\"\"", "give its name"}, [] { parse({"a.h5", ""}, 2); });
  expect_error(ExitCode::kUsage, {"--config", "empty"}, [] { config_from(parse({"--config", ""})); });
}

TEST(CommandLine, ErrorsEndWithAFullStop) {
  const TemporaryFolder folder;
  const std::string text = folder.write("a.cfg", "quux = 1\n"), section = folder.write("b.cfg", "[trian]\n");
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"--quux", "1"},
                                                                                     {"--train.btach", "1"},
                                                                                     {"stray"},
                                                                                     {"--train.batch"},
                                                                                     {"--overwrite=3"},
                                                                                     {"--config", text},
                                                                                     {"--config", section},
                                                                                     {"--config", "/nowhere/a.cfg"},
                                                                                     {"--train.batch", "many"},
                                                                                     {"--model.heads", "7"}})
    try {
      config_from(parse(words));
      ADD_FAILURE() << "no error: " << words[0];
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).ends_with(".")) << error.what();
    }
}

TEST(CommandLine, UnknownOptionNamesTheNearest) {
  expect_error(ExitCode::kUsage, {"--train.btach", "did you mean train.batch?"}, [] { parse({"--train.btach", "1"}); });
  expect_error(ExitCode::kUsage, {"--overwite", "did you mean overwrite?"}, [] { parse({"--overwite"}); });
  expect_error(ExitCode::kUsage, {"--train.b"}, [] { parse({"--train.b", "1"}); });
  expect_error(ExitCode::kUsage, {"-q"}, [] { parse({"-q"}); });
}

TEST(CommandLine, MissingAndSuperfluousValues) {
  expect_error(ExitCode::kUsage, {"--train.batch", "missing"}, [] { parse({"--train.batch"}); });
  expect_error(ExitCode::kUsage, {"--config", "missing"}, [] { parse({"--config"}); });
  expect_error(ExitCode::kUsage, {"--overwrite"}, [] { parse({"--overwrite=3"}); });
}

TEST(CommandLine, NegativeValueReachesTheCheck) {
  expect_error(ExitCode::kUsage, {"train.lr = \"-1\""}, [] { config_from(parse({"--train.lr", "-1"})); });
}

TEST(CommandLine, ConfigFromLayersAndValidates) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.cfg", "[train]\nbatch = 64\nmicrobatch = 32\n");
  const Config config = config_from(parse({"--train.microbatch", "8", "--config", path}));
  EXPECT_EQ(config.train.batch, 64);
  EXPECT_EQ(config.train.microbatch, 8) << "the command line wins wherever it stands";
  expect_error(ExitCode::kUsage, {"train.microbatch = 24"}, [&] {
    config_from(parse({"--config", path, "--train.microbatch", "24"}));
  });
}

// What holds before the subcommand reads its own words, and so must do with any.
TEST(CommandLine, TheTimeoutAlone) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.cfg", "[parallel]\ntimeout = 30\n[train]\nbatch = 64\n");
  EXPECT_EQ(timeout_in({"train", "--config", path, "--resume", "--overwrite"}), 30);
  EXPECT_EQ(timeout_in({"bench", "step", "--parallel.timeout=20", "--profile", "--config", path}), 20);
  EXPECT_EQ(timeout_in({"eval", "checkpoint.h5", "--parallel.timeout", "10", "--parallel.timeout", "20"}), 20);
  const Index usual = Config().parallel.timeout;
  EXPECT_EQ(timeout_in({}), usual);
  EXPECT_EQ(timeout_in({"train", "--parallel.timeout"}), usual);
  EXPECT_EQ(timeout_in({"train", "--parallel.timeout", "soon"}), usual);
  EXPECT_EQ(timeout_in({"train", "--config", folder / "none.cfg", "--parallel.timeout", "10"}), usual);
}

}  // namespace
}  // namespace switchyard
