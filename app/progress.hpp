// What rank 0 shows of a run: a bar that renews itself on a terminal; in a file, a line now and then.
#pragma once

#include <string>

#include "app/renewed_line.hpp"
#include "train/trainer.hpp"

namespace switchyard {

class Progress {
 public:
  // speaks: whether this rank shows anything. shows_load: the worst layer's max/mean too.
  Progress(bool speaks, bool shows_load, Index first_step, Index total_steps, Index steps_per_epoch, Index batch);

  void step(const StepMetrics& metrics);
  // epoch: done so far; seconds: since the evaluation before.
  void evaluation(double epoch, const Measures& measures, double seconds);
  // A line of its own, above the bar.
  void note(const std::string& line);

 private:
  void draw(const StepMetrics& metrics);

  bool speaks_;
  RenewedLine bar_;
  bool shows_load_;
  Index first_step_, total_steps_, steps_per_epoch_, batch_;
  double start_, last_drawn_;
  double smooth_loss_ = 0, smooth_accuracy_ = 0, smooth_seconds_ = 0, smooth_load_ = 0;
  double loss_sum_ = 0;  // of the steps since the last evaluation
  Index num_summed_ = 0;
};

}  // namespace switchyard
