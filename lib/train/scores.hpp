// What the evaluations of a run have come to, and what follows from it: early stopping, and a learning rate that falls
// on plateaus. As in Belcak & Wattenhofer, 2308.14711:
//   memorisation    the best accuracy on the training split
//   generalisation  the accuracy on the test split at the evaluation with the best accuracy on the validation split
// each of the first of equal evaluations, and each frozen once `patience` has passed without a better one.
#pragma once

#include <string>

#include "core/types.hpp"
#include "network/measures.hpp"

namespace switchyard {

// In steps; an evaluation that comes `patience` or more after the best one, and is no better, has run out of it.
struct ScoreRules {
  Index patience = 0;  // 0: scores are never frozen, the run goes on to its end
  Index plateau = 0;   // after so many without a better accuracy the learning rate falls; 0: never
  double plateau_factor = 1;
  bool plateau_of_training = false;  // or of the validation split
};

struct Score {
  double judged = 0;    // best accuracy of the split that judges, percent
  double accuracy = 0;  // what is scored, at that evaluation, percent
  Index step = 0;       // of that evaluation; 0: there was none
  bool frozen = false;

  bool is_tracked() const { return step > 0; }
  bool operator==(const Score&) const = default;
};

// Nothing but default values where neither the training nor a validation split is measured.
struct Scores {
  Index step = 0;  // of the newest evaluation
  Score memorisation, generalisation;
  double plateau_best = 0;  // accuracy, percent
  Index plateau_start = 0;  // step from which the plateau is counted; 0: before the first evaluation
  Index num_reductions = 0;

  bool operator==(const Scores&) const = default;
};

// Takes an evaluation into account, once: none of a step that is not after those before.
void observe(Scores& scores, const ScoreRules& rules, Index step, const Measures& measures);

// Whether all scores that are tracked are frozen.
bool is_over(const Scores& scores);

// What the learning rate is multiplied by: plateau_factor ^ num_reductions.
double rate_factor(const Scores& scores, const ScoreRules& rules);

// One line, numbers exact, for checkpoints. Parsing fails where it is not such a line.
std::string to_text(const Scores& scores);
Scores parse_scores(const std::string& text);

}  // namespace switchyard
