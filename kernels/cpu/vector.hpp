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

inline float sum_of(const Vector& v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// A NaN may get lost in a maximum.
inline Vector larger(const Vector& a, const Vector& b) { return a > b ? a : b; }
inline float max_of(const Vector& v) {
  const auto larger_one = [](float a, float b) { return a > b ? a : b; };
  return larger_one(larger_one(larger_one(v[0], v[4]), larger_one(v[2], v[6])),
                    larger_one(larger_one(v[1], v[5]), larger_one(v[3], v[7])));
}

}  // namespace switchyard::kernels::cpu
