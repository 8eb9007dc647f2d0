// Trainings on the data of clusters: the mixture of convolutional experts, and the one linear network.
#pragma once

#include "config/config.hpp"

namespace switchyard::testing {

inline Config clusters_config(bool mixture, Index samples) {
  Config config;
  config.data.kind = "clusters";
  config.data.limit = samples;
  config.model.kind = "patch_cnn";
  config.ffn.kind = mixture ? "moe" : "dense";
  config.ffn.hidden = mixture ? 16 : 80;
  config.ffn.activation = mixture ? "cube" : "identity";
  config.ffn.experts = 8;
  config.ffn.router = "patch_sum";
  config.train.optimizer = mixture ? "normalized" : "adam";
  config.train.lr = mixture ? 1e-3 : 3e-3;
  config.train.schedule = "constant";
  config.train.dropout = 0;
  config.train.batch = samples;
  config.train.microbatch = samples / 4;
  return config;
}

}  // namespace switchyard::testing
