#include "app/result_rows.hpp"

namespace switchyard {

io::StepRow step_row(const StepMetrics& metrics, Index batch) {
  const PhaseSeconds& phases = metrics.phases;
  return {.step = metrics.step,
          .epoch = metrics.epoch,
          .loss = metrics.loss,
          .balance_loss = metrics.auxiliary.balance,
          .z_loss = metrics.auxiliary.z,
          .importance_loss = metrics.auxiliary.importance,
          .load_loss = metrics.auxiliary.load,
          .consistency_loss = metrics.auxiliary.consistency,
          .hardening_loss = metrics.auxiliary.hardening,
          .accuracy = metrics.accuracy / 100,
          .learning_rate = metrics.learning_rate,
          .gradient_norm = metrics.gradient_norm,
          .samples_per_second = static_cast<double>(batch) / metrics.seconds,
          .seconds = metrics.seconds,
          .seconds_compute = metrics.seconds - phases.exchange - phases.reduce - phases.wait,
          .seconds_exchange = phases.exchange,
          .seconds_reduce = phases.reduce,
          .seconds_wait = phases.wait};
}

io::RoutingRow routing_row(Index step, const RoutingLoad& load) {
  io::RoutingRow row{.step = step,
                     .load = load.tokens,
                     .dropped = load.dropped,
                     .weight = load.weight,
                     .load_cv = {},
                     .max_over_mean = {},
                     .load_entropy = {},
                     .gate_entropy = load.gate_entropy,
                     .dead_experts = {}};
  for (Index layer = 0; layer < load.layers; ++layer) {
    const LoadBalance balance = load_balance(tokens_of_layer(load, layer));
    row.load_cv.push_back(static_cast<float>(balance.variation));
    row.max_over_mean.push_back(static_cast<float>(balance.max_over_mean));
    row.load_entropy.push_back(static_cast<float>(balance.entropy));
    row.dead_experts.push_back(static_cast<float>(balance.dead));
  }
  return row;
}

io::EvaluationRow evaluation_row(Index step, double epoch, const Measures& measures) {
  io::EvaluationRow row{.step = step,
                        .epoch = epoch,
                        .loss = measures.test.loss,
                        .accuracy = measures.test.accuracy / 100,
                        .seconds = measures.seconds()};
  if (measures.validation) {
    row.validation_loss = measures.validation->loss;
    row.validation_accuracy = measures.validation->accuracy / 100;
  }
  if (measures.training) {
    row.training_loss = measures.training->loss;
    row.training_accuracy = measures.training->accuracy / 100;
  }
  return row;
}

}  // namespace switchyard
