#include "train/scores.hpp"

#include <sstream>

#include "core/error.hpp"

namespace switchyard {

namespace {

void update(Score& score, Index patience, Index step, const Evaluation& judge, const Evaluation& scored) {
  if (score.frozen) return;
  if (!score.is_tracked() || judge.accuracy > score.judged)
    score = {judge.accuracy, scored.accuracy, step, false};
  else
    score.frozen = patience > 0 && step - score.step >= patience;
}

void update_plateau(Scores& scores, Index plateau, Index step, double accuracy) {
  if (scores.plateau_start == 0 || accuracy > scores.plateau_best) {
    scores.plateau_best = accuracy;
    scores.plateau_start = step;
  } else if (step - scores.plateau_start >= plateau) {
    ++scores.num_reductions;
    scores.plateau_start = step;
  }
}

// "NAME 93.75 80.5 12 frozen ": the judge's accuracy, the score, the step
std::string to_text(const char* name, const Score& score) {
  return fmt::format("{} {} {} {} {} ", name, score.judged, score.accuracy, score.step,
                     score.frozen ? "frozen" : "open");
}

}  // namespace

void observe(Scores& scores, const ScoreRules& rules, Index step, const Measures& measures) {
  if (step <= scores.step || !(measures.training || measures.validation)) return;
  scores.step = step;
  if (measures.training) update(scores.memorisation, rules.patience, step, *measures.training, *measures.training);
  if (measures.validation) update(scores.generalisation, rules.patience, step, *measures.validation, measures.test);
  const auto& judge = rules.plateau_of_training ? measures.training : measures.validation;
  if (rules.plateau > 0 && judge) update_plateau(scores, rules.plateau, step, judge->accuracy);
}

bool is_over(const Scores& scores) {
  const auto is_open = [](const Score& score) { return score.is_tracked() && !score.frozen; };
  return scores.step > 0 && !is_open(scores.memorisation) && !is_open(scores.generalisation);
}

double rate_factor(const Scores& scores, const ScoreRules& rules) {
  double factor = 1;
  for (Index i = 0; i < scores.num_reductions; ++i) factor *= rules.plateau_factor;
  return factor;
}

std::string to_text(const Scores& scores) {
  return fmt::format("step {} {}{}plateau {} {} {}", scores.step, to_text("memorisation", scores.memorisation),
                     to_text("generalisation", scores.generalisation), scores.plateau_best, scores.plateau_start,
                     scores.num_reductions);
}

Scores parse_scores(const std::string& text) {
  std::istringstream words(text);
  const auto take_name = [&](const std::string& name) {
    std::string word;
    if (!(words >> word) || word != name) words.setstate(std::ios::failbit);
  };
  const auto take_score = [&](const char* name, Score& score) {
    std::string state;
    take_name(name);
    words >> score.judged >> score.accuracy >> score.step >> state;
    score.frozen = state == "frozen";
    if (state != "frozen" && state != "open") words.setstate(std::ios::failbit);
  };
  Scores scores;
  take_name("step");
  words >> scores.step;
  take_score("memorisation", scores.memorisation);
  take_score("generalisation", scores.generalisation);
  take_name("plateau");
  words >> scores.plateau_best >> scores.plateau_start >> scores.num_reductions;
  if (!words || !(words >> std::ws).eof()) fail("\"{}\" are no scores of a run", text);
  return scores;
}

}  // namespace switchyard
