// A microbatch whose launches are being recorded, to be launched again in later steps (kernels/api/graph.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/random.hpp"
#include "core/types.hpp"
#include "kernels/api/graph.hpp"

namespace switchyard {

struct Recording {
  const std::uint32_t* step = nullptr;  // device: the number of the step at hand
  // Before the launches of another step: what the host draws for each step, it draws anew and replaces in the graph.
  std::vector<std::function<void(kernels::Graph& graph, Index step)>> redraws;
};

// For kernels to draw with; recording: null, where nothing is recorded.
inline RandomKey key_of_step(std::uint64_t seed, Purpose purpose, Index layer, Index step, const Recording* recording) {
  RandomKey key{seed, purpose, static_cast<std::uint32_t>(layer)};
  if (recording)
    key.step_in_memory = recording->step;
  else
    key.step = static_cast<std::uint32_t>(step);
  return key;
}

}  // namespace switchyard
