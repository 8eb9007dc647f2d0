// Reading configuration files, and printing the effective configuration.
#include <gtest/gtest.h>

#include <algorithm>

#include "config/config.hpp"
#include "config/keys.hpp"
#include "config/test_files.hpp"

namespace switchyard {
namespace {

using test::expect_error;
using test::TemporaryFolder;

// Loads `text` as the file run.cfg and expects an error that names the file, the line, and all of `parts`.
void expect_file_error(const std::string& text, int line, std::initializer_list<std::string> parts) {
  const TemporaryFolder folder;
  const std::string path = folder.write("run.cfg", text);
  expect_error(ExitCode::kUsage, {path + ":" + std::to_string(line) + ":"}, [&] { load_config({path}); });
  expect_error(ExitCode::kUsage, parts, [&] { load_config({path}); });
}

TEST(ConfigFiles, SectionsKeysAndComments) {
  const TemporaryFolder folder;
  const std::string path = folder.write("run.cfg",
                                        "# a comment\n"
                                        "run.name = first   # a key with its section, before any section\n"
                                        "\n"
                                        "[train]\n"
                                        "batch=256\r\n"
                                        "  lr   =   2.5e-4\n"
                                        "[ data ]\n"
                                        "path = /somewhere else/data\n"
                                        "flip = true\n"
                                        "[run]\n"
                                        "seed = 18446744073709551615");
  const Config config = load_config({path});
  EXPECT_EQ(config.run.name, "first");
  EXPECT_EQ(config.train.batch, 256);
  EXPECT_EQ(config.train.lr, 2.5e-4);
  EXPECT_EQ(config.data.path, "/somewhere else/data");
  EXPECT_TRUE(config.data.flip);
  EXPECT_EQ(config.run.seed, 18446744073709551615u);
  EXPECT_EQ(config.model.width, Config().model.width);
}

TEST(ConfigFiles, LaterFilesAndThenOverridesWin) {
  const TemporaryFolder folder;
  const std::string base = folder.write("base.cfg", "[train]\nbatch = 64\nlr = 0.5\nclip = 1\n");
  const std::string over = folder.write("over.cfg", "[train]\nbatch = 128\nlr = 0.25\n");
  const Config config = load_config({base, over}, {{"train.lr", "0.125"}, {"train.lr", "0.0625"}});
  EXPECT_EQ(config.train.clip, 1);
  EXPECT_EQ(config.train.batch, 128);
  EXPECT_EQ(config.train.lr, 0.0625);
  EXPECT_EQ(load_config({over, base}).train.batch, 64);
}

TEST(ConfigFiles, UnknownKeyNamesTheNearest) {
  expect_file_error("[train]\n\nbatsch = 3\n", 3, {"unknown key \"train.batsch\"", "did you mean train.batch?"});
  expect_file_error("[train]\nseed = 3\n", 2, {"train.seed", "did you mean run.seed?"});
  expect_file_error("[run]\nxyzzyxyzzy = 3\n", 2, {"unknown key \"run.xyzzyxyzzy\".", "--help"});
}

TEST(ConfigFiles, UnknownSection) {
  expect_file_error("\n[trian]\n", 2, {"[trian]", "did you mean train?", "[run] [data] [model]"});
  expect_file_error("[weather]\n", 1, {"unknown section \"[weather]\"."});
  expect_file_error("[study]\n", 1, {"give it to `switchyard study`"});
  expect_file_error("[train\n", 1, {"found \"[train\"", "the ] after the section's name is missing"});
  expect_file_error("[train] batch = 3\n", 1, {"\"[train] batch = 3\"", "may follow the ]"});
}

TEST(ConfigFiles, SameKeyTwiceInOneFile) {
  expect_file_error("[train]\nlr = 1\n[run]\nseed = 2\n[train]\nlr = 1\n", 6, {"train.lr", "second time", "line 2"});
}

TEST(ConfigFiles, LineThatIsNeither) { expect_file_error("[train]\nbatch 128\n", 2, {"\"batch 128\"", "key = value"}); }

TEST(ConfigFiles, ValueOfAnotherType) {
  expect_file_error("[train]\nbatch = many\n", 2, {"train.batch = \"many\"", "a whole number from 1"});
  expect_file_error("[train]\nbatch = 12.5\n", 2, {"train.batch = \"12.5\""});
  expect_file_error("[train]\nbatch = 128 256\n", 2, {"train.batch = \"128 256\""});
  expect_file_error("[train]\nbatch =\n", 2, {"train.batch = \"\""});
  expect_file_error("[train]\nlr = fast\n", 2, {"train.lr = \"fast\"", "a number from 0"});
  expect_file_error("[train]\nlr = 1e999\n", 2, {"train.lr = \"1e999\""});
  expect_file_error("[data]\nflip = yes\n", 2, {"data.flip = \"yes\"", "true | false"});
  expect_file_error("[run]\nname = \"quoted\"\n", 2, {"run.name", "without # or quotes"});
  expect_file_error("[run]\nname =\n", 2, {"run.name"});
}

TEST(ConfigFiles, ValueOutOfRange) {
  expect_file_error("[train]\nbatch = 0\n", 2, {"train.batch = \"0\"", "from 1"});
  expect_file_error("[train]\nbatch = 99999999999999999999\n", 2, {"train.batch"});
  expect_file_error("[train]\ndropout = 1\n", 2, {"train.dropout = \"1\"", "from 0 to 0.99"});
  expect_file_error("[train]\ninput_dropout = 1\n", 2, {"train.input_dropout = \"1\"", "from 0 to 0.99"});
  expect_file_error("[data]\nrotation = 181\n", 2, {"data.rotation = \"181\"", "from 0 to 180"});
  expect_file_error("[data]\nscaling = 1\n", 2, {"data.scaling = \"1\"", "from 0 to 0.99"});
  expect_file_error("[train]\nlr = nan\n", 2, {"train.lr"});
  expect_file_error("[train]\nlr = inf\n", 2, {"train.lr"});
  expect_file_error("[data]\ndeviation = 0\n", 2, {"data.deviation = \"0\"", "from 1e-06"});
  expect_file_error("[run]\nseed = -1\n", 2, {"run.seed = \"-1\"", "from 0"});
  expect_file_error("[ffn]\nkind = maze\n", 2, {"ffn.kind = \"maze\"", "dense | moe | fff"});
  expect_file_error("[model]\nkind = Vit\n", 2, {"model.kind = \"Vit\"", "vit"});
}

TEST(ConfigFiles, MissingFileAndFolder) {
  const TemporaryFolder folder;
  expect_error(ExitCode::kUsage, {folder / "none.cfg", "No such file"}, [&] { load_config({folder / "none.cfg"}); });
  expect_error(ExitCode::kUsage, {folder.path(), "folder"}, [&] { load_config({folder.path()}); });
}

TEST(ConfigFiles, FileOfOtherBytes) {
  const TemporaryFolder folder;
  const std::string path =
      folder.write("run.cfg", std::string("\x89HDF\r\n\x1a\n\0\0\0", 11) + std::string(100000, 'x'));
  try {
    load_config({path});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 400u) << "a message quotes only the beginning of a line";
  }
  expect_file_error("\x89HDF\r\n", 1, {"found \"?HDF\""});
  // Beyond ASCII: text, a control character, a character cut short, one byte of two, a surrogate's half.
  expect_file_error("caf\u00e9 \u20ac\n", 1, {"found \"caf\u00e9 \u20ac\""});
  expect_file_error("a\xC2\x9B|\xE2\x82|\xFF\xFE|\xED\xA0\x80|\n", 1, {"found \"a??|??|??|???|\""});
}

TEST(ConfigFiles, OnesThatDoNotEndAreRefused) {
  expect_error(ExitCode::kUsage, {"/dev/zero", "goes on after 4194304 bytes", "configuration file"},
               [] { load_config({"/dev/zero"}, {}); });
}

TEST(ConfigFiles, AByteOrderMarkIsSkipped) {
  const TemporaryFolder folder;
  EXPECT_EQ(load_config({folder.write("run.cfg", "\xEF\xBB\xBF[train]\nbatch = 256\n")}).train.batch, 256);
  expect_file_error(
      "[train]\n\xEF\xBB\xBF"
      "batch = 256\n",
      2, {"unknown key"});
}

TEST(ConfigFiles, OverridesAreChecked) {
  expect_error(ExitCode::kUsage, {"command line", "train.batsch", "did you mean train.batch?"}, [] {
    load_config({}, {{"train.batsch", "1"}});
  });
  expect_error(ExitCode::kUsage, {"command line", "train.lr = \"-1\""}, [] { load_config({}, {{"train.lr", "-1"}}); });
}

// Gives every key a value other than its default.
Config unlike_default() {
  Config config;
  for (const Key& key : keys_of(config)) {
    const std::string old_value = value_text(key);
    for (const char* value : {"true", "false", "0.1234567890123456789", "3", "7", "some text"}) {
      try {
        set_value(key, value, "test");
      } catch (const Error&) {
      }
      if (value_text(key) != old_value) break;
    }
    for (const std::string& choice : key.allowed.choices)
      if (value_text(key) == old_value) set_value(key, choice, "test");
  }
  return config;
}

TEST(ConfigText, ReadsBackAsTheSameConfiguration) {
  Config config = unlike_default();
  config.train.lr = 0.1 + 0.2;  // no short decimal
  config.train.epsilon = 1e-30;
  const Config back = parse_text(to_text(config));
  EXPECT_EQ(to_text(back), to_text(config));
  EXPECT_EQ(back.train.lr, config.train.lr);
  EXPECT_EQ(back.train.epsilon, config.train.epsilon);
  Config first = config, second = back, defaults;
  const auto first_keys = keys_of(first), second_keys = keys_of(second), default_keys = keys_of(defaults);
  int num_unlike = 0;
  for (std::size_t i = 0; i < first_keys.size(); ++i) {
    EXPECT_EQ(value_text(first_keys[i]), value_text(second_keys[i])) << first_keys[i].name;
    num_unlike += value_text(first_keys[i]) != value_text(default_keys[i]);
  }
  EXPECT_EQ(num_unlike, static_cast<int>(first_keys.size()));
}

TEST(ConfigText, HoldsEveryKey) {
  const std::string text = to_text(Config());
  EXPECT_EQ(text.rfind("[run]\nname = run\n", 0), 0u);
  EXPECT_NE(text.find("\nepsilon = 1e-08\n"), std::string::npos);
  EXPECT_NE(text.find("\npath =\n"), std::string::npos);
  Config config;
  const auto num_lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '='));
  EXPECT_EQ(num_lines, keys_of(config).size());
}

TEST(ConfigText, ErrorsNameTheSource) {
  expect_error(ExitCode::kUsage, {"step-10.h5:2:", "train.lr"}, [] { parse_text("[train]\nlr = x\n", "step-10.h5"); });
}

TEST(ConfigText, KeysThatTheTextLacksTakeTheirDefaults) { EXPECT_EQ(to_text(parse_text("")), to_text(Config())); }

TEST(ConfigText, KeysThatAnOlderFileLacksMeanWhatTheProgramDidThen) {
  const auto floor = [](const std::string& text) { return parse_stored("[ffn]\nkind = moe\n" + text).ffn.noise_floor; };
  EXPECT_EQ(floor("router = noisy_top_k\n"), 0);
  EXPECT_EQ(floor("router = noisy_top_k\nnoise_floor = 0.01\n"), 0.01);
  EXPECT_EQ(floor("router = switch\n"), 0.01) << "a default that nothing uses stays one";
  const auto order = [](const std::string& text) {
    return parse_stored("[ffn]\nkind = moe\n" + text).ffn.capacity_order;
  };
  for (const std::string router : {"top_k", "noisy_top_k", "loss_free"}) {
    const std::string text = "router = " + router + "\ntop_k = 2\n";
    EXPECT_EQ(order(text + "capacity_train = 1\n"), "token");
    EXPECT_EQ(order(text + "capacity_eval = 1\n"), "token");
    EXPECT_EQ(order(text + "capacity_train = 1\ncapacity_order = choice\n"), "choice");
    EXPECT_EQ(order(text), "choice") << "without a capacity there is no order";
  }
  EXPECT_EQ(order("router = top_k\ntop_k = 1\ncapacity_train = 1\n"), "choice");
  EXPECT_EQ(order("router = switch\ncapacity_train = 1\n"), "choice");
  const std::string dense = "[ffn]\nrouter = noisy_top_k\n";
  EXPECT_EQ(to_text(parse_stored(dense)), to_text(parse_text(dense)));
  EXPECT_EQ(to_text(parse_stored(to_text(Config()))), to_text(Config()));
}

TEST(ConfigHelp, ExplainsEveryKeyWithinTheWidth) {
  const std::string help = help_text(72);
  Config config;
  for (const Key& key : keys_of(config)) {
    EXPECT_NE(help.find(fmt::format("--{} ", key.name)), std::string::npos) << key.name;
    EXPECT_STRNE(key.doc, "") << key.name;
  }
  EXPECT_NE(help.find("--train.batch 128\n"), std::string::npos);
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 72u) << line;
}

TEST(ConfigKeys, DefaultsAreAllowed) {
  Config config;
  for (const Key& key : keys_of(config)) EXPECT_NO_THROW(set_value(key, value_text(key), "default")) << key.name;
  EXPECT_NO_THROW(validate(config));
}

}  // namespace
}  // namespace switchyard
