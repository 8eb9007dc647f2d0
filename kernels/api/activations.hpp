// The functions that kernels::Activation names, one type each: value(u), and slope(u), its derivative. Each device has
// a Gelu of its own.
#pragma once

#include "core/host_device.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard::kernels {

struct Relu {
  SWITCHYARD_HOST_DEVICE static float value(float u) { return u < 0 ? 0.0f : u; }  // NaN stays
  SWITCHYARD_HOST_DEVICE static float slope(float u) { return u > 0 ? 1.0f : 0.0f; }
};

struct Cube {
  SWITCHYARD_HOST_DEVICE static float value(float u) { return u * u * u; }
  SWITCHYARD_HOST_DEVICE static float slope(float u) { return 3 * u * u; }
};

struct Identity {
  SWITCHYARD_HOST_DEVICE static float value(float u) { return u; }
  SWITCHYARD_HOST_DEVICE static float slope(float) { return 1; }
};

// body(Function{})
template <typename Gelu, typename Body>
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

}  // namespace switchyard::kernels
