// The Gaussian error linear unit.
#pragma once

#include "kernels/api/activations.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

struct Gelu {
  static float value(float u) { return u * gaussian(u).cdf; }
  static float slope(float u) {
    const Gaussian g = gaussian(u);
    return g.cdf + u * g.pdf;
  }
};

}  // namespace switchyard::kernels::cpu
