// Early stopping and a learning rate that falls on plateaus, on any layout and through kill and resume; what is
// measured and where it is told.
#include <csignal>
#include <iterator>
#include <regex>
#include <sstream>

#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

Words words_of(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

// 111 training samples, 37 for validation: 2 steps an epoch.
const Words kMeasured = words_of("--data.validation 0.25 --run.measure_training true");
constexpr int kPatience = 8;
const Words kSteered =
    kMeasured + words_of(
                    "--data.crop_padding 0 --data.flip false --run.epochs 60 --train.lr 0.004 --train.patience 8 "
                    "--train.schedule constant --train.plateau 3 --train.plateau_factor 0.25 --train.plateau_of "
                    "training --run.log_every 1000");

std::vector<std::string> reductions(const Outcome& outcome) {
  std::istringstream lines(outcome.out);
  std::vector<std::string> found;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("learning rate times ")) found.push_back(line);
  return found;
}

class ScoresProgram : public Mistakes {
 protected:
  static void expect_same_result(const Outcome& found, const Outcome& expected) {
    EXPECT_EQ(found.digest(), expected.digest());
    EXPECT_EQ(found.test_line(), expected.test_line());
    for (const char* line : {"memorisation ", "generalisation ", "stopped early: "})
      EXPECT_EQ(found.line(line), expected.line(line));
  }
  static void expect_line(const Outcome& outcome, const char* beginning, const char* rest) {
    EXPECT_TRUE(std::regex_match(outcome.line(beginning), std::regex(rest))) << outcome;
  }
  // The first of the best, until patience ran out.
  static const io::EvaluationRow& best_of(const io::ResultsSummary& summary, double io::EvaluationRow::*accuracy) {
    const io::EvaluationRow* best = &summary.evaluations.at(0);
    for (const io::EvaluationRow& row : summary.evaluations)
      if (row.epoch - best->epoch <= kPatience && row.*accuracy > best->*accuracy) best = &row;
    return *best;
  }
  io::ResultsSummary results(const char* run) const {
    return io::describe_results(path(std::string("runs/") + run) / "results.h5");
  }
};

TEST_F(ScoresProgram, ARunStopsWhenAccuracyRisesNoMore) {
  const Outcome one = train(1, kSteered);
  ASSERT_EQ(one.code, 0) << one;
  expect_line(one, "stopped early: ",
              R"(after epoch \d+ of 60: no better training accuracy for 8 epochs after epoch \d+, )"
              R"(no better validation accuracy for 8 epochs after epoch \d+)");
  EXPECT_GE(reductions(one).size(), 2u) << one;
  const io::ResultsSummary summary = results("small");
  EXPECT_EQ(summary.attributes.at("status"), "finished");
  ASSERT_FALSE(summary.evaluations.empty());
  EXPECT_LT(summary.evaluations.back().epoch, 60);
  ASSERT_TRUE(summary.last_step);  // whatever run.log_every
  EXPECT_EQ(summary.last_step->step, summary.evaluations.back().step);

  // The scores are those of the evaluations in the file.
  const auto number = [&](const char* name) { return std::stod(summary.attributes.at(name)); };
  const io::EvaluationRow &trained = best_of(summary, &io::EvaluationRow::training_accuracy),
                          &validated = best_of(summary, &io::EvaluationRow::validation_accuracy);
  EXPECT_NEAR(number("memorisation_accuracy"), trained.training_accuracy, 1e-12);
  EXPECT_EQ(number("memorisation_epoch"), trained.epoch);
  EXPECT_NEAR(number("generalisation_accuracy"), validated.accuracy, 1e-12);
  EXPECT_EQ(number("generalisation_epoch"), validated.epoch);
  EXPECT_EQ(summary.evaluations.back().epoch, std::max(trained.epoch, validated.epoch) + kPatience);

  for (const auto& [ranks, expert_ranks] : {std::pair{2, "2"}, {4, "1"}}) {
    const Outcome other = train(ranks, kSteered + Words{"--overwrite", "--parallel.experts", expert_ranks});
    expect_same_result(other, one);
    EXPECT_EQ(reductions(other), reductions(one));
  }
  // It is over: to go on with it tells it again.
  const Outcome again = train(2, kSteered + Words{"--resume"});
  EXPECT_EQ(again.code, 0) << again;
  expect_same_result(again, one);
  EXPECT_EQ(results("small").last_step->step, summary.last_step->step);
  EXPECT_EQ(results("small").attributes.at("memorisation_epoch"), summary.attributes.at("memorisation_epoch"));
}

// Killed between two reductions of the rate.
TEST_F(ScoresProgram, KilledAndResumedItGoesTheSameWay) {
  const Words often = kSteered + Words{"--checkpoint.every", "1", "--checkpoint.keep", "1000"};
  const Outcome whole = train(1, often + Words{"--run.out", "whole"});
  ASSERT_EQ(whole.code, 0) << whole;
  const std::vector<std::string> all = reductions(whole);
  ASSERT_GE(all.size(), 2u) << whole;

  const auto running = start(2, training(often));
  ASSERT_TRUE(wait_until([&] { return running->out().find("learning rate times ") != std::string::npos; }));
  running->send_to_ranks(SIGKILL);
  EXPECT_NE(running->wait().code, 0);
  // From the first checkpoint after the first reduction and one step before it, in the middle of an epoch.
  const auto first_step = [](const std::string& line) {
    return 2 * std::stoll(line.substr(line.find("epoch ") + 6));  // 2 steps an epoch
  };
  for (const Index step : {first_step(all[0]) + 1, first_step(all[0]) - 1}) {
    const fs::path from = io::checkpoint_path(path("whole/small"), step);
    const Outcome resumed =
        train(4, often + Words{"--run.out", "other", "--run.name", std::to_string(step), "--resume", from.string()});
    ASSERT_EQ(resumed.code, 0) << resumed;
    expect_same_result(resumed, whole);
    EXPECT_EQ(reductions(resumed).size(), step > first_step(all[0]) ? all.size() - 1 : all.size());
  }
  const Outcome resumed = train(1, often + Words{"--resume"});
  ASSERT_EQ(resumed.code, 0) << resumed;
  expect_same_result(resumed, whole);
  EXPECT_LT(reductions(resumed).size(), all.size() + 1);
}

TEST_F(ScoresProgram, MeasuringAloneChangesNothing) {
  const Outcome plain = train(2, {"--run.name", "plain"});
  const Outcome measured = train(2, {"--run.measure_training", "true"});
  ASSERT_EQ(measured.code, 0) << measured;
  EXPECT_EQ(measured.digest(), plain.digest());
  EXPECT_EQ(measured.test_line(), plain.test_line());
  measured.line("memorisation accuracy ");
  EXPECT_EQ(measured.out.find("generalisation"), std::string::npos);
  EXPECT_EQ(results("plain").attributes.at("memorisation_accuracy"), "");
  EXPECT_EQ(plain.out.find("memorisation"), std::string::npos);
}

TEST_F(ScoresProgram, WhatIsMeasuredIsShown) {
  const Outcome trained = train(1, kMeasured);
  ASSERT_EQ(trained.code, 0) << trained;
  expect_line(trained, "epoch 3/3  ",
              R"(training loss [\d.]+  test accuracy [\d.]+ %  test loss [\d.]+  validation [\d.]+ %  )"
              R"(training [\d.]+ %  [\d.]+ s)");
  const Outcome inspected = run(1, {"inspect", "runs/small/results.h5"});
  for (const char* part : {"\nmemorisation_accuracy 0.", "\ngeneralisation_epoch ",
                           "test loss  validation accuracy %  validation loss  training accuracy %  training loss\n"})
    EXPECT_NE(inspected.out.find(part), std::string::npos) << part << "\n" << inspected;
  const Outcome evaluated = run(2, {"eval", "runs/small/checkpoint-00000006.h5"});
  EXPECT_EQ(evaluated.test_line(), trained.test_line());
  const io::EvaluationRow row = results("small").evaluations.back();
  EXPECT_EQ(evaluated.line("validation accuracy "),
            fmt::format("{:.2f} % loss {:.4f}", 100 * row.validation_accuracy, row.validation_loss));
  EXPECT_EQ(evaluated.line("training accuracy "),
            fmt::format("{:.2f} % loss {:.4f}", 100 * row.training_accuracy, row.training_loss));
}

TEST_F(ScoresProgram, KeysThatDoNotFitAreExplained) {
  expect_message(1, training({"--train.patience", "5"}), 2, {"train.patience = 5", "data.validation"});
  expect_message(1, training({"--data.validation", "0.001"}), 2, {"data.validation = 0.001", "148 training samples"});
  ASSERT_EQ(train(1, kSteered).code, 0);
  expect_message(1, training(kSteered + Words{"--resume", "--run.eval_every", "2"}), 2, {"run.eval_every: 1 -> 2"});
}

}  // namespace
}  // namespace switchyard::test
