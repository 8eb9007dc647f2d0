#include "network/convert.hpp"

#include <xxhash.h>

#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/random.hpp"
#include "model/experts.hpp"

namespace switchyard {

namespace {

struct Match {
  ParameterId dense, mixture;
};

std::string dense_name(const ParameterSpec& spec) {
  std::string name = spec.name;
  const std::string part = ".experts.";
  if (spec.per_expert) name.replace(name.rfind(part), part.size(), ".ffn.");
  return name;
}

// Every parameter of the mixture but gates has its own in the dense model, and the other way round.
std::vector<Match> matches(const ParameterTable& dense, const ParameterTable& mixture) {
  std::map<std::string, ParameterId> by_name;
  for (ParameterId id = 0; id < dense.size(); ++id) by_name[dense[id].name] = id;
  std::vector<Match> found;
  for (ParameterId id = 0; id < mixture.size(); ++id) {
    const ParameterSpec& spec = mixture[id];
    if (spec.name.find(".gate.") != std::string::npos) continue;
    const auto place = by_name.find(dense_name(spec));
    if (place == by_name.end()) fail("{}: the dense model has no such parameter", spec.name);
    const std::vector<Index> of_one(spec.shape.begin() + (spec.per_expert ? 1 : 0), spec.shape.end());
    if (of_one != dense[place->second].shape)
      fail("{} is of shape ({}), but {} of ({})", spec.name, listed(of_one), place->first,
           listed(dense[place->second].shape));
    found.push_back({place->second, id});
    by_name.erase(place);
  }
  if (!by_name.empty()) fail("{}: the mixture has no such parameter", by_name.begin()->first);
  return found;
}

double standard_deviation(const std::vector<float>& values) {
  const auto size = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (float value : values) mean += double{value} / size;
  for (float value : values) squares += (double{value} - mean) * (double{value} - mean);
  return std::sqrt(squares / size);
}

std::vector<float> with_noise(std::vector<float> values, double scale, const RandomKey& key, Index expert) {
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % 4 == 0) words = random_words(key, static_cast<std::uint32_t>(expert), static_cast<std::uint32_t>(i / 4));
    values[i] = static_cast<float>(double{values[i]} + scale * to_normal(words, i % 4));
  }
  return values;
}

}  // namespace

void upcycle(const Context& context, const ParameterStore& dense, ParameterStore& mixture, double noise,
             std::uint64_t seed) {
  for (const Match& match : matches(dense.table(), mixture.table())) {
    const ParameterSpec& spec = mixture.table()[match.mixture];
    std::vector<float> values(static_cast<std::size_t>(spec.slice_size()));
    const Index bytes = spec.slice_size() * Index{sizeof(float)};
    kernels::copy_to_host(context, values.data(), dense.value(match.dense), bytes);
    const double scale = spec.per_expert ? noise * standard_deviation(values) : 0;
    RandomKey key{seed, Purpose::kUpcycle};
    key.step = static_cast<std::uint32_t>(XXH3_64bits(spec.name.data(), spec.name.size()));
    for (Index slice = 0; slice < mixture.local_slices(match.mixture); ++slice) {
      float* target = mixture.values() + mixture.offset(match.mixture, slice);
      const Index expert = mixture.first_expert() + slice;
      kernels::copy_to_device(context, target,
                              scale > 0 ? with_noise(values, scale, key, expert).data() : values.data(), bytes);
    }
  }
}

void average_experts(const Context& context, Communicator& expert_group, const ParameterStore& mixture,
                     ParameterStore& dense) {
  for (const Match& match : matches(dense.table(), mixture.table())) {
    const ParameterSpec& spec = mixture.table()[match.mixture];
    float* target = dense.values() + dense.offset(match.dense);
    if (spec.per_expert) {
      kernels::Array<float> scratch(context.device, spec.size());
      average_over_experts(context, expert_group, mixture, match.mixture, scratch.data(), target);
    } else {
      kernels::copy(context, target, mixture.value(match.mixture), spec.size() * Index{sizeof(float)});
    }
  }
}

}  // namespace switchyard
