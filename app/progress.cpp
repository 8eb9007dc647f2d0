#include "app/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "app/text.hpp"
#include "routing/load.hpp"

namespace switchyard {

namespace {

constexpr double kBarSeconds = 0.2;
constexpr double kLineSeconds = 15;
constexpr double kSmoothing = 0.05;

// Of the layer whose fullest expert is the furthest above an even share.
double worst_load(const RoutingLoad& load) {
  double worst = 0;
  for (Index layer = 0; layer < load.layers; ++layer)
    worst = std::max(worst, load_balance(tokens_of_layer(load, layer)).max_over_mean);
  return worst;
}

}  // namespace

Progress::Progress(bool speaks, bool shows_load, Index first_step, Index total_steps, Index steps_per_epoch,
                   Index batch)
    : speaks_(speaks),
      bar_(speaks),
      shows_load_(shows_load),
      first_step_(first_step),
      total_steps_(total_steps),
      steps_per_epoch_(steps_per_epoch),
      batch_(batch),
      start_(seconds_now()),
      last_drawn_(bar_.columns() > 0 ? 0 : start_) {}

void Progress::step(const StepMetrics& metrics) {
  if (!speaks_) return;
  // Mean so far over the first steps, an exponential mean afterwards.
  const double weight = std::max(kSmoothing, 1 / static_cast<double>(metrics.step - first_step_));
  smooth_loss_ += weight * (metrics.loss - smooth_loss_);
  smooth_accuracy_ += weight * (metrics.accuracy - smooth_accuracy_);
  smooth_seconds_ += weight * (metrics.seconds - smooth_seconds_);
  if (shows_load_) smooth_load_ += weight * (worst_load(metrics.routing) - smooth_load_);
  loss_sum_ += metrics.loss;
  ++num_summed_;
  const double now = seconds_now();
  if (now - last_drawn_ < (bar_.columns() > 0 ? kBarSeconds : kLineSeconds)) return;
  last_drawn_ = now;
  draw(metrics);
}

void Progress::draw(const StepMetrics& metrics) {
  const Index epochs = std::max<Index>(1, ceil_div(total_steps_, steps_per_epoch_));
  const Index epoch = std::min(epochs, (metrics.step - 1) / steps_per_epoch_ + 1);
  const double rate = smooth_seconds_ > 0 ? static_cast<double>(batch_) / smooth_seconds_ : 0;
  const double left = static_cast<double>(total_steps_ - metrics.step) * smooth_seconds_;
  const std::string load = shows_load_ ? fmt::format("load {:.1f}x  ", smooth_load_) : "";
  const std::string figures = fmt::format("loss {:.3f}  accuracy {:.1f} %", smooth_loss_, smooth_accuracy_);
  const std::string time_left = duration(left) + " left";
  const std::size_t columns = bar_.columns();
  if (columns == 0) {
    fmt::print("epoch {}/{}  step {}/{}  {}  {:.0f} samples/s  {}{}\n", epoch, epochs, metrics.step, total_steps_,
               figures, rate, load, time_left);
    std::fflush(stdout);
    return;
  }
  const double done = static_cast<double>(metrics.step) / static_cast<double>(total_steps_);
  const std::string head = fmt::format("epoch {}/{} {:3.0f} % ", epoch, epochs, 100 * done);
  // The shorter texts are for narrow terminals.
  std::string tail;
  for (const std::string& text :
       {fmt::format(" {}  {:.0f} samples/s  {}{}", figures, rate, load, time_left),
        fmt::format(" {}  {:.0f}/s  {}{}", figures, rate, load, time_left),
        fmt::format(" {}  {:.0f} samples/s  {}", figures, rate, time_left),
        fmt::format(" loss {:.3f}  {:.0f}/s  {}", smooth_loss_, rate, time_left), " " + time_left, std::string()}) {
    tail = text;
    if (head.size() + tail.size() <= columns) break;
  }
  const std::size_t used = head.size() + tail.size();
  const std::size_t width = used + 4 <= columns ? std::min<std::size_t>(columns - used, 40) : 0;
  const auto filled = static_cast<std::size_t>(done * static_cast<double>(width));
  const bool unicode = speaks_unicode();
  std::string bar;
  for (std::size_t i = 0; i < width; ++i) bar += i < filled ? (unicode ? "━" : "#") : (unicode ? "─" : "-");
  bar_.show(head + bar + tail);
}

void Progress::note(const std::string& line) {
  if (!speaks_) return;
  bar_.clear();
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

void Progress::evaluation(double epoch, const Measures& measures, double seconds) {
  std::string more;
  if (measures.validation) more += fmt::format("  validation {:.2f} %", measures.validation->accuracy);
  if (measures.training) more += fmt::format("  training {:.2f} %", measures.training->accuracy);
  const Index epochs = std::max<Index>(1, ceil_div(total_steps_, steps_per_epoch_));
  note(fmt::format("epoch {:.4g}/{}  training loss {:.3f}  test accuracy {:.2f} %  test loss {:.4f}{}  {:.1f} s", epoch,
                   epochs, loss_sum_ / static_cast<double>(std::max<Index>(num_summed_, 1)), measures.test.accuracy,
                   measures.test.loss, more, seconds));
  loss_sum_ = 0;
  num_summed_ = 0;
}

}  // namespace switchyard
