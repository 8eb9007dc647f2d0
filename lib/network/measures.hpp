// What an evaluation finds.
#pragma once

#include <optional>

namespace switchyard {

// Of one split.
struct Evaluation {
  double loss = 0;      // mean over its samples
  double accuracy = 0;  // percent
  double seconds = 0;
};

// Of each split that is measured.
struct Measures {
  Evaluation test = {};
  std::optional<Evaluation> validation = {};  // where there is one
  std::optional<Evaluation> training = {};    // with run.measure_training

  double seconds() const {
    return test.seconds + (validation ? validation->seconds : 0) + (training ? training->seconds : 0);
  }
};

}  // namespace switchyard
