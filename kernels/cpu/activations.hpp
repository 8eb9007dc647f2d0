// The functions that kernels::Activation names: value(u) and slope(u), one type each.
#pragma once

#include "kernels/api/elementwise.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

struct Gelu {
  static float value(float u) { return u * gaussian(u).cdf; }
  static float slope(float u) {
    const Gaussian g = gaussian(u);
    return g.cdf + u * g.pdf;
  }
};

struct Relu {
  static float value(float u) { return u < 0 ? 0.0f : u; }  // NaN stays
  static float slope(float u) { return u > 0 ? 1.0f : 0.0f; }
};

struct Cube {
  static float value(float u) { return u * u * u; }
  static float slope(float u) { return 3 * u * u; }
};

struct Identity {
  static float value(float u) { return u; }
  static float slope(float) { return 1; }
};

// body(Function{})
template <typename Body>
void with_function(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kGelu:
      return body(Gelu{});
    case Activation::kRelu:
      return body(Relu{});
    case Activation::kCube:
      return body(Cube{});
    case Activation::kIdentity:
      return body(Identity{});
  }
}

}  // namespace switchyard::kernels::cpu
