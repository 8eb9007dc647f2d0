// Which evaluations count, when a run is over, and when the learning rate falls.
#include "train/scores.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "core/error.hpp"

namespace switchyard {
namespace {

Measures measures(double test, std::optional<double> validation, std::optional<double> training) {
  Measures found{.test = {.accuracy = test}};
  if (validation) found.validation = Evaluation{.accuracy = *validation};
  if (training) found.training = Evaluation{.accuracy = *training};
  return found;
}

// One evaluation every 10 steps, the first after step 10.
Scores after(const ScoreRules& rules, const std::vector<Measures>& evaluations) {
  Scores scores;
  Index step = 0;
  for (const Measures& each : evaluations) observe(scores, rules, step += 10, each);
  return scores;
}

TEST(Scores, AreOfTheFirstOfTheBestEvaluations) {
  const Scores scores =
      after({}, {measures(50, 60, 70), measures(55, 65, 75), measures(99, 65, 75), measures(98, 64, 74)});
  EXPECT_EQ(scores.memorisation, (Score{75, 75, 20, false}));
  EXPECT_EQ(scores.generalisation, (Score{65, 55, 20, false})) << "not the best on the test split";
  EXPECT_EQ(scores.step, 40);
  EXPECT_FALSE(is_over(scores)) << "there is no patience to lose";
}

TEST(Scores, AreOfTheSplitsThatAreMeasured) {
  const Scores neither = after({.patience = 10}, {measures(50, {}, {}), measures(50, {}, {})});
  EXPECT_EQ(neither, Scores{});
  EXPECT_FALSE(is_over(neither));
  const Scores one = after({.patience = 10}, {measures(50, {}, 0), measures(50, {}, 0)});
  EXPECT_TRUE(one.memorisation.is_tracked()) << "an accuracy of 0, too";
  EXPECT_FALSE(one.generalisation.is_tracked());
  EXPECT_TRUE(is_over(one)) << "what is not tracked is not waited for";
}

TEST(Scores, AreEachFrozenWhenPatienceRunsOut) {
  const ScoreRules rules{.patience = 20};
  std::vector<Measures> evaluations = {measures(50, 60, 70), measures(51, 59, 71), measures(52, 60, 72)};
  Scores scores = after(rules, evaluations);
  EXPECT_TRUE(scores.generalisation.frozen) << "20 steps without a better one";
  EXPECT_FALSE(scores.memorisation.frozen);
  EXPECT_FALSE(is_over(scores));
  evaluations.push_back(measures(90, 90, 71));
  evaluations.push_back(measures(90, 90, 72));
  scores = after(rules, evaluations);
  EXPECT_EQ(scores.generalisation, (Score{60, 50, 10, true})) << "what comes later does not count";
  EXPECT_EQ(scores.memorisation, (Score{72, 72, 30, true}));
  EXPECT_TRUE(is_over(scores));
  EXPECT_FALSE(after({.patience = 21}, {evaluations.begin(), evaluations.begin() + 3}).generalisation.frozen);
}

TEST(Scores, TakeAnEvaluationOnce) {
  const ScoreRules rules{.patience = 10, .plateau = 10, .plateau_factor = 0.5};
  Scores scores = after(rules, {measures(50, 60, {}), measures(50, 60, {})});
  const Scores before = scores;
  observe(scores, rules, 20, measures(50, 70, {}));
  observe(scores, rules, 10, measures(50, 70, {}));
  EXPECT_EQ(scores, before);
}

TEST(Plateau, IsCountedAnewAfterEachReduction) {
  const ScoreRules rules{.patience = 0, .plateau = 20, .plateau_factor = 0.5, .plateau_of_training = false};
  std::vector<Measures> evaluations;
  std::vector<double> factors;
  for (const double accuracy : {50, 49, 50, 48, 49, 51, 50, 50, 51}) {
    evaluations.push_back(measures(0, accuracy, 99));
    factors.push_back(rate_factor(after(rules, evaluations), rules));
  }
  EXPECT_EQ(factors, (std::vector<double>{1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125}));
}

TEST(Plateau, IsOfTheSplitThatIsAskedFor) {
  const std::vector<Measures> evaluations = {measures(1, 50, 50), measures(2, 51, 50), measures(3, 52, 50)};
  const ScoreRules of_training{.patience = 0, .plateau = 20, .plateau_factor = 0.1, .plateau_of_training = true};
  EXPECT_EQ(rate_factor(after(of_training, evaluations), of_training), 0.1);
  const ScoreRules of_validation{.patience = 0, .plateau = 20, .plateau_factor = 0.1, .plateau_of_training = false};
  EXPECT_EQ(rate_factor(after(of_validation, evaluations), of_validation), 1);
  EXPECT_EQ(after({}, evaluations).num_reductions, 0) << "0 epochs: never";
}

TEST(ScoresAsText, ComeBackToTheBit) {
  const ScoreRules rules{.patience = 20, .plateau = 10, .plateau_factor = 0.5};
  const Scores scores =
      after(rules, {measures(100 / 3.0, 200 / 7.0, 0.1), measures(2, 1, 0.3), measures(2, 1, 100 * (1 - 1e-16))});
  EXPECT_TRUE(scores.generalisation.frozen);
  EXPECT_EQ(scores.num_reductions, 2);
  EXPECT_EQ(parse_scores(to_text(scores)), scores);
  EXPECT_EQ(parse_scores(to_text(Scores{})), Scores{});
}

TEST(ScoresAsText, AreRefusedWhereTheyAreSomethingElse) {
  const std::string whole = to_text(after({}, {measures(1, 2, 3)}));
  for (const std::string& text : {std::string(), whole.substr(0, whole.size() - 2), whole + " 1", "x" + whole,
                                  std::string("step 10 memorisation 1 2 3 closed")})
    EXPECT_THROW(parse_scores(text), Error) << text;
}

}  // namespace
}  // namespace switchyard
