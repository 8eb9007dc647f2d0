// The synthetic distribution of Chen et al. (2208.02813): K = 4 clusters, samples of 4 patches of 50 features. With v_k
// and c_k eight orthonormal vectors, each sample draws its label y = +-1, its cluster k, another cluster k', a sign e,
// and
//   y alpha v_k,  beta c_k,  e gamma v_k',  xi ~ N(0, (sp^2 / 50) I)
//   alpha ~ U(0.5, 2), beta ~ U(1, 2), gamma and sp by data.clusters_setting:
//     1: gamma ~ U(0.5, 3), sp = 1   2: U(0.5, 3), 2   3: U(0.5, 2), 1   4: U(0.5, 2), 2
// as its patches in a random order, all times 10. 16000 training samples and as many of the test.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/random.hpp"
#include "data/formats.hpp"

namespace switchyard {

namespace {

constexpr Index kClusters = 4, kPatches = 4, kFeatures = 50, kSamples = 16000;
constexpr double kScale = 10;

// The layer of the key, apart from that of synthetic images, and values of its step.
constexpr std::uint32_t kLayer = 1;
enum Sequence : std::uint32_t { kVectors, kTrain, kTest };

RandomKey key_of(const DataOptions& options, Sequence sequence) {
  return {.seed = options.seed, .purpose = Purpose::kSynthetic, .layer = kLayer, .step = sequence};
}

using Vector = std::array<double, kFeatures>;

// Standard normals of the row's first blocks.
Vector normals(const RandomKey& key, std::uint32_t row) {
  Vector vector;
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < vector.size(); ++i) {
    if (i % 4 == 0) words = random_words(key, row, static_cast<std::uint32_t>(i / 4));
    vector[i] = to_normal(words, i % 4);
  }
  return vector;
}

// What a sample draws after its noise.
constexpr std::uint32_t kFirstBlockAfterNormals = (kFeatures + 3) / 4;

// Gram and Schmidt's, of Gaussians: v_0 ... v_3, c_0 ... c_3.
std::array<Vector, 2 * kClusters> orthonormal_vectors(const RandomKey& key) {
  std::array<Vector, 2 * kClusters> vectors;
  const auto dot = [](const Vector& a, const Vector& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  for (std::size_t n = 0; n < vectors.size(); ++n) {
    Vector& vector = vectors[n] = normals(key, static_cast<std::uint32_t>(n));
    for (std::size_t m = 0; m < n; ++m) {
      const double along = dot(vector, vectors[m]);
      for (std::size_t i = 0; i < vector.size(); ++i) vector[i] -= along * vectors[m][i];
    }
    const double length = std::sqrt(dot(vector, vector));
    for (double& value : vector) value /= length;
  }
  return vectors;
}

class Samples {
 public:
  explicit Samples(const DataOptions& options)
      : vectors_(orthonormal_vectors(key_of(options, kVectors))),
        largest_gamma_(options.clusters_setting <= 2 ? 3 : 2),
        deviation_((options.clusters_setting % 2 == 1 ? 1 : 2) / std::sqrt(double{kFeatures})) {}

  void add(const RandomKey& key, std::uint32_t row, Split& split) const {
    const auto choices = random_words(key, row, kFirstBlockAfterNormals);
    const auto sizes = random_words(key, row, kFirstBlockAfterNormals + 1);
    const auto order = random_words(key, row, kFirstBlockAfterNormals + 2);
    const auto uniform = [](double low, double high, std::uint32_t word) {
      return low + (high - low) * double{to_unit_float(word)};
    };
    const std::uint32_t label = to_below(choices[0], 2), cluster = to_below(choices[1], kClusters);
    const std::uint32_t other = (cluster + 1 + to_below(choices[2], kClusters - 1)) % kClusters;
    const double sign = to_below(choices[3], 2) == 1 ? 1 : -1;
    std::array<Vector, kPatches> patches = {vectors_[cluster], vectors_[kClusters + cluster], vectors_[other],
                                            normals(key, row)};
    const std::array<double, kPatches> factors = {(label == 1 ? 1 : -1) * uniform(0.5, 2, sizes[0]),
                                                  uniform(1, 2, sizes[1]),
                                                  sign * uniform(0.5, largest_gamma_, sizes[2]), deviation_};
    std::array<std::size_t, kPatches> places = {0, 1, 2, 3};
    for (std::size_t i = kPatches - 1; i > 0; --i)
      std::swap(places[i], places[to_below(order[i], static_cast<std::uint32_t>(i + 1))]);
    for (const std::size_t place : places)
      for (const double value : patches[place])
        split.features.push_back(static_cast<float>(kScale * factors[place] * value));
    split.labels.push_back(static_cast<std::int32_t>(label));
    split.clusters.push_back(static_cast<std::int32_t>(cluster));
  }

 private:
  std::array<Vector, 2 * kClusters> vectors_;
  double largest_gamma_, deviation_;
};

Split make_split(const DataOptions& options, const Samples& samples, Sequence sequence) {
  Split split;
  split.count = limited(kSamples, options.limit);
  split.features.reserve(static_cast<std::size_t>(split.count * kPatches * kFeatures));
  for (Index row = 0; row < split.count; ++row)
    samples.add(key_of(options, sequence), static_cast<std::uint32_t>(row), split);
  return split;
}

}  // namespace

Dataset make_clusters(const DataOptions& options) {
  const Samples samples(options);
  return {.name = "clusters",
          .height = kPatches,
          .width = kFeatures,
          .channels = 1,
          .classes = 2,
          .train = make_split(options, samples, kTrain),
          .test = make_split(options, samples, kTest)};
}

}  // namespace switchyard
