// Eight floats as one value, by GCC's and Clang's vector extension, for loops whose shape the compiler would not find.
#pragma once

#include <cstdint>

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

constexpr Index kLanes = 8;

typedef float Vector __attribute__((vector_size(sizeof(float) * kLanes)));
typedef std::uint32_t UnsignedVector __attribute__((vector_size(sizeof(float) * kLanes)));

// Loads and stores at any address of a float.
typedef float VectorAnywhere __attribute__((vector_size(sizeof(float) * kLanes), may_alias, aligned(sizeof(float))));
inline Vector load(const float* from) { return *reinterpret_cast<const VectorAnywhere*>(from); }
inline void store(float* to, const Vector& values) { *reinterpret_cast<VectorAnywhere*>(to) = values; }

inline Vector broadcast(float value) { return Vector{} + value; }

// A sum or maximum over the lanes, in every lane of the result. A NaN may get lost in a maximum.
inline Vector larger(const Vector& a, const Vector& b) { return a > b ? a : b; }
template <typename Combine>
inline Vector reduce_lanes(Vector v, const Combine& combine) {
  v = combine(v, __builtin_shuffle(v, UnsignedVector{4, 5, 6, 7, 0, 1, 2, 3}));
  v = combine(v, __builtin_shuffle(v, UnsignedVector{2, 3, 0, 1, 6, 7, 4, 5}));
  return combine(v, __builtin_shuffle(v, UnsignedVector{1, 0, 3, 2, 5, 4, 7, 6}));
}
inline Vector sum_of(const Vector& v) {
  return reduce_lanes(v, [](const Vector& a, const Vector& b) { return a + b; });
}
inline Vector max_of(const Vector& v) {
  return reduce_lanes(v, [](const Vector& a, const Vector& b) { return larger(a, b); });
}

}  // namespace switchyard::kernels::cpu
