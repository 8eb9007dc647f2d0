// Mistakes on the command line and in configuration files.
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

Words train_with(const Words& words) { return Words{"train", "--config", "small.cfg"} + words; }

class BadConfiguration : public Mistakes, public testing::WithParamInterface<Mistake> {};

TEST_P(BadConfiguration, IsExplained) {
  folder_.write("misspelt.cfg", "[train]\n# more\nbatchs = 256\n");
  folder_.write("unknown.cfg", "[train]\nbatch = 48\n[train]\nquux = 1\n");
  expect(GetParam());
  EXPECT_FALSE(std::filesystem::exists(path("runs"))) << "nothing is written before the configuration is checked";
}

INSTANTIATE_TEST_SUITE_P(
    CommandLine, BadConfiguration,
    testing::Values(
        Mistake{"command",
                {"trian"},
                kUsage,
                {"\"trian\"", "mean train?", "train, eval, inspect, bench, upcycle, export, study, ranks"},
                1},
        Mistake{"unknown_option", train_with({"--quux", "1"}), kUsage, {"--quux", "--help"}},
        Mistake{"misspelt_option", train_with({"--train.bacth", "3"}), kUsage, {"train.bacth", "mean train.batch?"}},
        Mistake{"abbreviated_option", train_with({"--train.b", "3"}), kUsage, {"train.b", "mean train.batch?"}},
        Mistake{"value_missing", train_with({"--train.batch"}), kUsage, {"--train.batch", "missing"}},
        Mistake{"stray_word", train_with({"other.cfg"}), kUsage, {"\"other.cfg\"", "--help"}},
        Mistake{
            "out_of_range", train_with({"--train.dropout", "1"}), kUsage, {"train.dropout", "\"1\"", "from 0 to 0.99"}},
        Mistake{
            "not_a_number", train_with({"--train.batch", "many"}), kUsage, {"train.batch", "\"many\"", "whole number"}},
        Mistake{"not_a_choice",
                train_with({"--ffn.router", "swich"}),
                kUsage,
                {"ffn.router", "\"swich\"", "switch | top_k | noisy_top_k"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Files, BadConfiguration,
    testing::Values(Mistake{"missing", {"train", "--config", "none.cfg"}, kUsage, {"none.cfg", "No such file"}},
                    Mistake{"folder", {"train", "--config", "/"}, kUsage, {"/", "folder", "--config"}},
                    Mistake{"unknown_key",
                            train_with({"--config", "unknown.cfg"}),
                            kUsage,
                            {"unknown.cfg:4", "train.quux", "--help"}},
                    Mistake{"misspelt_key",
                            train_with({"--config", "misspelt.cfg"}),
                            kUsage,
                            {"misspelt.cfg:3", "train.batchs", "mean train.batch?"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Rules, BadConfiguration,
    testing::Values(
        Mistake{"patch_does_not_divide_the_image",
                train_with({"--model.patch", "5"}),
                kUsage,
                {"model.patch = 5", "12x12", "take a divisor", "use model.patch = 4 or 6"}},
        Mistake{"crops_beyond_the_image",
                train_with({"--data.crop_padding", "13"}),
                kUsage,
                {"data.crop_padding = 13", "12x12", "at most 12"}},
        Mistake{"heads_do_not_divide_the_width",
                train_with({"--model.heads", "5"}),
                kUsage,
                {"model.heads = 5", "model.width = 24"}},
        Mistake{"fewer_positions_than_patches",
                train_with({"--model.positions", "3"}),
                kUsage,
                {"model.positions = 3", "9 patches"}},
        Mistake{"experts_not_divisible",
                train_with({"--ffn.experts", "3", "--parallel.experts", "2"}),
                kUsage,
                {"ffn.experts = 3", "parallel.experts = 2"}},
        Mistake{"experts_of_a_dense_model",
                train_with({"--ffn.kind", "dense", "--parallel.experts", "2"}),
                kUsage,
                {"parallel.experts = 2", "dense", "set parallel.experts = 1"}},
        Mistake{"microbatch_does_not_divide_the_batch",
                train_with({"--train.microbatch", "5"}),
                kUsage,
                {"train.microbatch = 5", "train.batch = 48"}},
        Mistake{"batch_larger_than_the_data",
                train_with({"--train.batch", "480"}),
                kUsage,
                {"train.batch = 480", "148 training samples", "smaller batch"}},
        Mistake{"longer_than_its_schedule",
                train_with({"--run.steps", "7", "--train.schedule_epochs", "2"}),
                kUsage,
                {"run.steps = 7", "train.schedule_epochs = 2", "after step 6"}},
        Mistake{"cuda",
                train_with({"--compute.device", "cuda"}),
                kUsage,
                {"compute.device = cuda", "use compute.device = cpu"}},
        Mistake{"run_outside_its_folder", train_with({"--run.name", "../there"}), kUsage, {"run.name", "without /"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Ranks, BadConfiguration,
    testing::Values(Mistake{"not_a_power_of_two", train_with({}), kUsage, {"3 ranks", "M = 24", "use 2 or 4 ranks"}, 3},
                    Mistake{"too_many",
                            train_with({"--train.microbatch", "12"}),
                            kUsage,
                            {"8 ranks", "M = 4", "use 4 ranks", "train.microbatch = 6 for 8 ranks"},
                            8},
                    Mistake{"fewer_than_the_experts_need",
                            train_with({"--parallel.experts", "4"}),
                            kUsage,
                            {"parallel.experts = 4", "use 4 ranks"},
                            2}),
    name_of);

TEST_F(Mistakes, OutputThatCannotBeWritten) {
  // /proc takes no folders, not even from root.
  expect_message(2, train_with({"--run.out", "/proc/runs"}), kFailure,
                 {"run.out = /proc/runs", "cannot write", "choose a folder"});
  expect_message(2, train_with({"--run.out", "small.cfg"}), kFailure,
                 {"run.out = small.cfg", "Not a directory", "choose a folder"});
}

TEST_F(Mistakes, NoCommandShowsThemAll) {
  const Outcome outcome = run(2, {});
  EXPECT_EQ(outcome.code, kUsage);
  EXPECT_EQ(outcome.out, "");
  for (const char* part : {"Usage:", "switchyard train", "switchyard eval", "switchyard inspect", "switchyard bench"}) {
    const auto at = outcome.err.find(part);
    ASSERT_NE(at, std::string::npos) << part << "\n" << outcome;
    EXPECT_EQ(outcome.err.find(part, at + 1),
              part == std::string("switchyard train") ? outcome.err.rfind(part) : std::string::npos)
        << "only rank 0 speaks\n"
        << outcome;
  }
}

TEST_F(Program, MpirunItselfReportsTheCode) {
  EXPECT_EQ(run(2, {"train", "--config", "none.cfg"}).code, kUsage);
  EXPECT_EQ(run(1, {"train", "--config", "none.cfg"}).code, kUsage);
}

TEST_F(Program, HelpIsNoMistake) {
  for (const Words& words : {Words{"--help"},
                             {"help"},
                             {"--version"},
                             {"train", "--help"},
                             {"eval", "--help"},
                             {"inspect", "--help"},
                             {"bench", "--help"},
                             {"upcycle", "-h"},
                             {"export", "--merge", "average", "--help"},
                             {"study", "--help"},
                             {"ranks", "--help"}}) {
    const Outcome outcome = run(2, words);
    EXPECT_EQ(outcome.code, 0) << outcome;
    EXPECT_EQ(outcome.err, "") << outcome;
    EXPECT_NE(outcome.out.find("switchyard "), std::string::npos) << outcome;
    const std::string first_line = outcome.out.substr(0, outcome.out.find('\n') + 1);
    EXPECT_EQ(outcome.out.find(first_line), outcome.out.rfind(first_line)) << "one process speaks for all\n" << outcome;
  }
  const Outcome help = run(2, {"train", "--help"});
  for (const char* key : {"train.batch", "ffn.granularity", "checkpoint.keep", "--resume", "--overwrite"})
    EXPECT_NE(help.out.find(key), std::string::npos) << key;
}

}  // namespace
}  // namespace switchyard::test
