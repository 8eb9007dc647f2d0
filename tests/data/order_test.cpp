// The order of an epoch, the validation split, synthetic data, and what is known of each kind of data.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "config/test_files.hpp"
#include "data/dataset.hpp"

namespace switchyard {
namespace {

using test::expect_error;

TEST(EpochOrder, IsAPermutation) {
  for (const Index count : {0, 1, 2, 3, 1000}) {
    std::vector<std::uint32_t> order = epoch_order(7, 3, count);
    ASSERT_EQ(static_cast<Index>(order.size()), count);
    std::sort(order.begin(), order.end());
    for (Index i = 0; i < count; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
}

TEST(DataAttributes, TellDataApart) {
  const Dataset data = load_dataset({.kind = "synthetic", .synthetic_samples = 40});
  const auto attributes = data_attributes(data);
  EXPECT_EQ(attributes, data_attributes(data));
  EXPECT_EQ(attributes.at("data"), "28x28x1 10 classes");
  EXPECT_EQ(attributes.at("data_train").substr(0, 21), "40 samples, XXH3-128 ");
  const auto changed = [&](const std::function<void(Dataset&)>& change) {
    Dataset other = data;
    change(other);
    std::vector<std::string> names;
    for (const auto& [name, value] : data_attributes(other))
      if (attributes.at(name) != value) names.push_back(name);
    return names;
  };
  const std::vector<std::string> train = {"data_train"}, test = {"data_test"};
  EXPECT_EQ(changed([](Dataset& d) { d.train.images.back() ^= 1; }), train);
  EXPECT_EQ(changed([](Dataset& d) { d.train.labels[0] ^= 1; }), train);
  EXPECT_EQ(changed([](Dataset& d) { d.test.images[0] ^= 1; }), test);
  EXPECT_EQ(changed([](Dataset& d) { d.test.labels.back() ^= 1; }), test);
}

TEST(EpochOrder, DependsOnSeedAndEpochOnly) {
  const auto order = epoch_order(1, 0, 1000);
  EXPECT_EQ(order, epoch_order(1, 0, 1000));
  EXPECT_NE(order, epoch_order(1, 1, 1000));
  EXPECT_NE(order, epoch_order(2, 0, 1000));
  EXPECT_NE(order, epoch_order((std::uint64_t{1} << 32) + 1, 0, 1000)) << "the seed's upper half counts";
}

// Over 6,000 epochs each of the six orders of three samples appears 1,000 times, give or take five deviations.
TEST(EpochOrder, EveryOrderIsEquallyLikely) {
  std::vector<int> count(27);
  for (Index epoch = 0; epoch < 6000; ++epoch) {
    const auto order = epoch_order(11, epoch, 3);
    ++count[order[0] * 9 + order[1] * 3 + order[2]];
  }
  int num_orders = 0;
  for (const int times : count) {
    if (times == 0) continue;
    ++num_orders;
    EXPECT_NEAR(times, 1000, 5 * std::sqrt(6000.0 * 5 / 36));
  }
  EXPECT_EQ(num_orders, 6);
}

DataOptions synthetic(std::uint64_t seed = 1) {
  return {.kind = "synthetic",
          .synthetic_samples = 400,
          .synthetic_size = 6,
          .synthetic_channels = 3,
          .synthetic_classes = 5,
          .seed = seed};
}

TEST(Synthetic, HasTheShapeAskedFor) {
  const Dataset data = load_dataset(synthetic());
  EXPECT_EQ(data.height, 6);
  EXPECT_EQ(data.width, 6);
  EXPECT_EQ(data.channels, 3);
  EXPECT_EQ(data.classes, 5);
  EXPECT_EQ(data.train.count, 400);
  EXPECT_EQ(data.test.count, 100);
  EXPECT_EQ(data.train.images.size(), 400u * 6 * 6 * 3);
  EXPECT_EQ(data.test.labels.size(), 100u);
}

TEST(Synthetic, IsAFunctionOfItsSeed) {
  const Dataset data = load_dataset(synthetic());
  EXPECT_EQ(data.train.images, load_dataset(synthetic()).train.images);
  EXPECT_NE(data.train.images, load_dataset(synthetic(2)).train.images);
  EXPECT_FALSE(std::equal(data.test.images.begin(), data.test.images.end(), data.train.images.begin()))
      << "the splits hold different images";
}

TEST(Synthetic, LimitTakesTheFirst) {
  DataOptions options = synthetic();
  const Dataset all = load_dataset(options);
  options.limit = 10;
  const Dataset few = load_dataset(options);
  EXPECT_EQ(few.train.count, 10);
  EXPECT_EQ(few.test.count, 10);
  EXPECT_TRUE(std::equal(few.train.images.begin(), few.train.images.end(), all.train.images.begin()));
}

// The nearest class mean of the training images finds the class of test images: there is something to learn.
TEST(Synthetic, CanBeLearned) {
  const Dataset data = load_dataset(synthetic());
  const std::size_t size = 6 * 6 * 3;
  std::vector<double> mean(5 * size);
  for (std::size_t i = 0; i < 400; ++i)
    for (std::size_t p = 0; p < size; ++p)
      mean[static_cast<std::size_t>(data.train.labels[i]) * size + p] += data.train.images[i * size + p] / 80.0;
  int num_right = 0;
  for (std::size_t i = 0; i < 100; ++i) {
    std::vector<double> distance(5);
    for (std::size_t c = 0; c < 5; ++c)
      for (std::size_t p = 0; p < size; ++p)
        distance[c] += std::pow(data.test.images[i * size + p] - mean[c * size + p], 2);
    const auto nearest = std::min_element(distance.begin(), distance.end()) - distance.begin();
    num_right += nearest == data.test.labels[i];
  }
  EXPECT_GE(num_right, 95);
}

// Images of one pixel that says which sample it is, labels likewise.
Dataset numbered(Index count) {
  Dataset data{"numbered", 1, 1, 1, 200};
  data.train.count = count;
  for (Index i = 0; i < count; ++i) {
    data.train.images.push_back(static_cast<std::uint8_t>(i));
    data.train.labels.push_back(static_cast<std::int32_t>(i));
  }
  return data;
}

TEST(Validation, PartsTheTrainingSplit) {
  Dataset data = numbered(200);
  split_validation(data, 0.1, 1);
  EXPECT_EQ(data.train.count, 180);
  EXPECT_EQ(data.validation.count, 20);
  std::vector<std::int32_t> all;
  for (const Split* split : {&data.train, &data.validation}) {
    ASSERT_EQ(std::ssize(split->labels), split->count);
    ASSERT_EQ(std::ssize(split->images), split->count);
    EXPECT_TRUE(std::is_sorted(split->labels.begin(), split->labels.end())) << "in the order that they had";
    for (std::size_t i = 0; i < split->labels.size(); ++i) EXPECT_EQ(split->images[i], split->labels[i]);
    all.insert(all.end(), split->labels.begin(), split->labels.end());
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, numbered(200).train.labels) << "each sample in one of them";
  EXPECT_NE(data.validation.labels.back(), 19) << "not just the first";
  EXPECT_NE(data.validation.labels.front(), 180) << "not just the last";
}

TEST(Validation, IsAFunctionOfItsSeed) {
  Dataset one = numbered(200), again = numbered(200), other = numbered(200);
  split_validation(one, 0.1, 1);
  split_validation(again, 0.1, 1);
  split_validation(other, 0.1, 2);
  EXPECT_EQ(one.validation.labels, again.validation.labels);
  EXPECT_NE(one.validation.labels, other.validation.labels);
}

// Over 2,000 seeds each of ten samples is one of three chosen 600 times, give or take five deviations.
TEST(Validation, EverySampleIsEquallyLikely) {
  std::vector<int> count(10);
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    Dataset data = numbered(10);
    split_validation(data, 0.3, seed);
    for (const std::int32_t label : data.validation.labels) ++count[static_cast<std::size_t>(label)];
  }
  for (const int times : count) EXPECT_NEAR(times, 600, 5 * std::sqrt(2000 * 0.3 * 0.7));
}

TEST(Validation, LeavesSamplesOnBothSides) {
  EXPECT_EQ(num_validation_samples(0, 10), 0);
  EXPECT_EQ(num_validation_samples(0.1, 60000), 6000);
  EXPECT_EQ(num_validation_samples(0.5, 3), 2);
  expect_error(ExitCode::kUsage, {"data.validation = 0.01", "10 training samples", "for validation"},
               [] { num_validation_samples(0.01, 10); });
  expect_error(ExitCode::kUsage, {"data.validation = 0.99", "10 training samples", "for training"},
               [] { num_validation_samples(0.99, 10); });
}

TEST(Validation, IsPartOfLoading) {
  DataOptions options = synthetic();
  const Dataset all = load_dataset(options);
  EXPECT_EQ(all.validation.count, 0);
  EXPECT_FALSE(data_attributes(all).contains("data_validation"));
  options.validation = 0.25;
  const Dataset parted = load_dataset(options);
  EXPECT_EQ(parted.train.count, 300);
  EXPECT_EQ(parted.validation.count, 100);
  EXPECT_EQ(parted.test.images, all.test.images);
  EXPECT_EQ(data_attributes(parted).at("data_validation").substr(0, 12), "100 samples,");
}

TEST(Synthetic, SaysWhenItDoesNotFit) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer stops the program at such a request";
#endif
  const DataOptions options{
      .kind = "synthetic", .synthetic_samples = 10'000'000, .synthetic_size = 4096, .synthetic_channels = 4};
  expect_error(ExitCode::kFailure, {"data.kind = synthetic: ", "memory", "data.limit"}, [&] { load_dataset(options); });
}

TEST(Dataset, UnknownKind) {
  expect_error(ExitCode::kFailure, {"imagenet", "cifar10"},
               [] { load_dataset({.kind = "imagenet", .path = "/somewhere"}); });
}

TEST(Dataset, KnownShapes) {
  EXPECT_EQ(known_shape({.kind = "fashion-mnist"})->height, 28);
  EXPECT_EQ(known_shape({.kind = "cifar10"})->channels, 3);
  EXPECT_EQ(known_shape({.kind = "cifar100"})->classes, 100);
  EXPECT_EQ(known_shape(synthetic())->classes, 5);
  EXPECT_FALSE(known_shape({.kind = "hdf5"}).has_value());
}

}  // namespace
}  // namespace switchyard
