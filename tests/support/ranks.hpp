// What tests of ranks, routing, models and training share: contexts, communicators of any layout, random numbers, and
// the text of errors.
#pragma once

#include <mpi.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/mesh.hpp"
#include "comm/mpi.hpp"
#include "core/context.hpp"
#include "core/error.hpp"
#include "core/random.hpp"

namespace switchyard::testing {

constexpr Index kTimeout = 60;  // seconds; a test that hangs fails by then

inline int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

inline int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

// The time-out is of its collectives: ranks may come late from the test before.
inline std::unique_ptr<Communicator> world_communicator(Index timeout = kTimeout) {
  auto world = make_mpi_communicator(MPI_COMM_WORLD, kTimeout);
  world->set_timeout(timeout);
  return world;
}

// A CPU context with its own threads.
class Cpu {
 public:
  explicit Cpu(int num_threads = 1) : threads_(num_threads) { context_.threads = &threads_; }
  operator const Context&() const { return context_; }
  const Context& context() const { return context_; }

 private:
  ThreadPool threads_;
  Context context_;
};

// Uniform over [-1, 1); another array for another seed.
inline std::vector<float> random_floats(Index size, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 2 * to_unit_float(random_words({.seed = seed}, 0, static_cast<std::uint32_t>(i))[0]) - 1;
  return values;
}

// Of both signs and magnitudes from 2^-12 to 2^12: rounding depends on the order in which they are added.
inline std::vector<float> order_sensitive_floats(Index size, std::uint64_t seed) {
  std::vector<float> values = random_floats(size, seed);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto words = random_words({.seed = seed}, 1, static_cast<std::uint32_t>(i));
    values[i] = std::ldexp(values[i], static_cast<int>(to_below(words[0], 25)) - 12);
  }
  return values;
}

inline std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

// The message of the Error that `body` throws; empty where it throws none.
template <typename Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace switchyard::testing
