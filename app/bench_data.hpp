#pragma once

#include "config/config.hpp"
#include "data/dataset.hpp"

namespace switchyard {

// Images of the configured kind's shape, a batch of them; their content does not matter to the time.
Dataset data_for_bench(const Config& config);

}  // namespace switchyard
