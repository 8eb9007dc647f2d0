// The distribution of data.kind = clusters, by its own statistics. Every vector of a sample is found again by what the
// paper says of it, through inner products alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "data/dataset.hpp"

namespace switchyard::testing {
namespace {

constexpr std::size_t kPatches = 4, kFeatures = 50;

DataOptions clusters(Index setting, Index limit = 0, std::uint64_t seed = 1) {
  DataOptions options;
  options.kind = "clusters";
  options.clusters_setting = setting;
  options.limit = limit;
  options.seed = seed;
  return options;
}

const float* patch(const Split& split, std::size_t sample, std::size_t p) {
  return split.features.data() + (sample * kPatches + p) * kFeatures;
}

double dot(const float* a, const float* b) {
  double sum = 0;
  for (std::size_t i = 0; i < kFeatures; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

double length(const float* a) { return std::sqrt(dot(a, a)); }

TEST(Clusters, HaveThePapersSizes) {
  const Dataset data = load_dataset(clusters(1));
  EXPECT_EQ(data.train.count, 16000);
  EXPECT_EQ(data.test.count, 16000);
  EXPECT_EQ(data.height * data.width * data.channels, 200);
  EXPECT_EQ(data.classes, 2);
  EXPECT_EQ(data.train.features.size(), 16000u * 200);
  EXPECT_TRUE(data.train.images.empty());
  const auto expect_even = [](const std::vector<std::int32_t>& values, int kinds) {
    EXPECT_EQ(values.size(), 16000u);
    for (int kind = 0; kind < kinds; ++kind)
      EXPECT_NEAR(std::count(values.begin(), values.end(), kind), 16000 / kinds, 5 * std::sqrt(16000 / kinds));
  };
  for (const Split* split : {&data.train, &data.test}) {
    expect_even(split->labels, 2);
    expect_even(split->clusters, 4);
  }
}

// v_k and c_k as samples show them.
struct Directions {
  std::array<std::array<float, kFeatures>, 4> v{}, c{};
};

// Patches without noise lie along one of eight orthonormal directions. Those whose sign never changes are centers; the
// other that every sample of a cluster has is the cluster's own.
Directions find(const Split& split) {
  Directions found;
  std::vector<std::array<float, kFeatures>> all;
  std::vector<std::array<int, 2>> signs;  // of all's: times seen along and against
  std::vector<std::array<int, 4>> seen;   // by cluster
  for (std::size_t s = 0; s < 400; ++s)
    for (std::size_t p = 0; p < kPatches; ++p) {
      const float* x = patch(split, s, p);
      std::size_t match = all.size();
      for (std::size_t d = 0; d < all.size(); ++d) {
        const double cosine = dot(x, all[d].data()) / length(x);
        if (std::abs(cosine) > 0.999) match = d;
      }
      if (match == all.size()) {
        // New: a direction, if another sample has it too, and noise otherwise.
        bool again = false;
        for (std::size_t t = 0; t < 400 && !again; ++t)
          for (std::size_t q = 0; q < kPatches; ++q)
            again |= t != s && std::abs(dot(x, patch(split, t, q))) > 0.999 * length(x) * length(patch(split, t, q));
        if (!again) continue;
        all.emplace_back();
        for (std::size_t i = 0; i < kFeatures; ++i) all.back()[i] = static_cast<float>(x[i] / length(x));
        signs.push_back({}), seen.push_back({});
      }
      ++signs[match][dot(x, all[match].data()) > 0 ? 0 : 1];
      ++seen[match][static_cast<std::size_t>(split.clusters[s])];
    }
  EXPECT_EQ(all.size(), 8u);
  for (std::size_t d = 0; d < all.size(); ++d) {
    const auto k = static_cast<std::size_t>(std::max_element(seen[d].begin(), seen[d].end()) - seen[d].begin());
    (signs[d][0] == 0 || signs[d][1] == 0 ? found.c : found.v)[k] = all[d];
  }
  // Label 1 is along v_k, label 0 against it.
  for (std::size_t s = 0; s < 40; ++s)
    for (std::size_t p = 0; p < kPatches; ++p) {
      auto& v = found.v[static_cast<std::size_t>(split.clusters[s])];
      const double along = dot(patch(split, s, p), v.data());
      if (std::abs(along) > 0.999 * length(patch(split, s, p)) && (along > 0) != (split.labels[s] == 1))
        for (float& value : v) value = -value;
    }
  return found;
}

class ClusterSettings : public ::testing::TestWithParam<Index> {};

TEST_P(ClusterSettings, AreAsThePaperSays) {
  const Index setting = GetParam();
  const Split split = load_dataset(clusters(setting, 4000)).train;
  const Directions at = find(split);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j) {
      EXPECT_NEAR(dot(at.v[i].data(), at.v[j].data()), i == j, 1e-5);
      EXPECT_NEAR(dot(at.c[i].data(), at.c[j].data()), i == j, 1e-5);
      EXPECT_NEAR(dot(at.v[i].data(), at.c[j].data()), 0, 1e-5);
    }
  double alpha_sum = 0, beta_sum = 0, gamma_sum = 0, noise_squares = 0, least_gamma = 100, most_gamma = 0;
  std::array<int, kPatches> noise_places{};
  int others_along = 0;
  for (std::size_t s = 0; s < 4000; ++s) {
    const auto k = static_cast<std::size_t>(split.clusters[s]);
    int found = 0;
    for (std::size_t p = 0; p < kPatches; ++p) {
      const float* x = patch(split, s, p);
      const double size = length(x);
      if (std::abs(dot(x, at.v[k].data())) > 0.999 * size) {
        ++found;
        EXPECT_EQ(dot(x, at.v[k].data()) > 0, split.labels[s] == 1);
        EXPECT_TRUE(size >= 4.999 && size <= 20.001) << size;
        alpha_sum += size / 10;
      } else if (dot(x, at.c[k].data()) > 0.999 * size) {
        ++found;
        EXPECT_TRUE(size >= 9.999 && size <= 20.001) << size;
        beta_sum += size / 10;
      } else {
        double along = 0;
        for (std::size_t other = 0; other < 4; ++other)
          if (other != k && std::abs(dot(x, at.v[other].data())) > 0.999 * size)
            along = dot(x, at.v[other].data()) / 10;
        if (along == 0) {
          noise_squares += size * size / 100;
          ++noise_places[p];
          continue;
        }
        ++found;
        others_along += along > 0;
        gamma_sum += std::abs(along);
        least_gamma = std::min(least_gamma, std::abs(along)), most_gamma = std::max(most_gamma, std::abs(along));
      }
    }
    EXPECT_EQ(found, 3) << "sample " << s;
  }
  const double highest = setting <= 2 ? 3 : 2, deviation = setting % 2 == 1 ? 1 : 2;
  EXPECT_NEAR(alpha_sum / 4000, 1.25, 0.04);
  EXPECT_NEAR(beta_sum / 4000, 1.5, 0.03);
  EXPECT_NEAR(gamma_sum / 4000, (0.5 + highest) / 2, 0.06);
  EXPECT_NEAR(least_gamma, 0.5, 0.01);
  EXPECT_NEAR(most_gamma, highest, 0.01);
  EXPECT_NEAR(noise_squares / 4000, deviation * deviation, 0.03 * deviation * deviation);
  EXPECT_NEAR(others_along, 2000, 160);
  for (const int times : noise_places) EXPECT_NEAR(times, 1000, 140);
}

INSTANTIATE_TEST_SUITE_P(All, ClusterSettings, ::testing::Values(1, 2, 3, 4));

TEST(Clusters, ASampleDependsOnItsPlaceAndTheSeedAlone) {
  const Dataset all = load_dataset(clusters(2, 60)), few = load_dataset(clusters(2, 7)),
                other = load_dataset(clusters(2, 60, 2));
  EXPECT_EQ(few.train.count, 7);
  EXPECT_TRUE(std::equal(few.train.features.begin(), few.train.features.end(), all.train.features.begin()));
  EXPECT_TRUE(std::equal(few.train.clusters.begin(), few.train.clusters.end(), all.train.clusters.begin()));
  EXPECT_NE(all.train.features, other.train.features);
  EXPECT_NE(all.train.features, all.test.features);
}

TEST(Clusters, TheirHashCoversFeaturesAndClusters) {
  Dataset data = load_dataset(clusters(1, 10));
  std::set<std::string> hashes{data_attributes(data)["data_train"]};
  data.train.features[3] += 1;
  hashes.insert(data_attributes(data)["data_train"]);
  data.train.clusters[3] += 1;
  hashes.insert(data_attributes(data)["data_train"]);
  EXPECT_EQ(hashes.size(), 3u);
}

}  // namespace
}  // namespace switchyard::testing
