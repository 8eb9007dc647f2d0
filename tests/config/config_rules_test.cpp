// Rules between keys, the rank counts that a configuration allows, and what may change when a run is resumed.
#include <gtest/gtest.h>

#include "config/config.hpp"
#include "config/test_files.hpp"

namespace switchyard {
namespace {

using test::expect_error;

// The error of validate() after one change to the default configuration.
template <typename Change>
void expect_invalid(std::initializer_list<std::string> parts, const Change& change) {
  Config config;
  change(config);
  expect_error(ExitCode::kUsage, parts, [&] { validate(config); });
}

TEST(Validate, MicrobatchDividesBatch) {
  expect_invalid({"train.microbatch = 48", "train.batch = 128"}, [](Config& c) { c.train.microbatch = 48; });
  expect_invalid({"train.microbatch = 256", "train.batch = 128"}, [](Config& c) { c.train.microbatch = 256; });
}

TEST(Validate, NormalizedStepsAreAboveZero) {
  for (const double lr : {0.0, 5e-324})
    expect_invalid({"train.lr = ", "train.gate_lr = 1000000", "raise it"}, [=](Config& c) {
      c.ffn.kind = "moe";
      c.train.optimizer = "normalized";
      c.train.lr = lr;
      c.train.gate_lr = 1e6;
    });
}

TEST(Validate, HeadsDivideWidth) {
  expect_invalid({"model.heads = 5", "model.width = 64"}, [](Config& c) { c.model.heads = 5; });
}

TEST(Validate, ExpertRanksDivideExperts) {
  expect_invalid({"parallel.experts = 8", "ffn.experts = 4"}, [](Config& c) {
    c.ffn.kind = "moe";
    c.parallel.experts = 8;
  });
  expect_invalid({"parallel.experts = 3", "power of two"}, [](Config& c) {
    c.ffn.kind = "moe";
    c.ffn.experts = 6;
    c.parallel.experts = 3;
  });
  expect_invalid({"parallel.experts = 2", "dense"}, [](Config& c) { c.parallel.experts = 2; });
}

TEST(Validate, TwoPassesMustBeAbleToDiffer) {
  Config config;
  config.ffn.consistency = 0.5;
  EXPECT_NO_THROW(validate(config));
  config.train.dropout = 0;
  const std::initializer_list<std::string> parts = {"ffn.consistency = 0.5", "train.dropout", "ffn.router"};
  const auto expect_refused = [&] { expect_error(ExitCode::kUsage, parts, [&] { validate(config); }); };
  expect_refused();
  config.ffn.router = "random";  // of a dense network
  expect_refused();
  config.ffn.kind = "moe";
  EXPECT_NO_THROW(validate(config));
  config.ffn.experts = 1;
  expect_refused();
  for (const char* noisy : {"noisy_top_k", "patch_sum"}) {
    config.ffn.router = noisy;
    EXPECT_NO_THROW(validate(config)) << noisy;
  }
  config.ffn.router = "switch";
  expect_refused();
  for (double* noise : {&config.ffn.gate_jitter, &config.ffn.gate_dropout, &config.ffn.expert_dropout}) {
    const double before = *noise;
    *noise = 0.1;
    EXPECT_NO_THROW(validate(config));
    *noise = before;
  }
  expect_refused();
  config.train.input_dropout = 0.1;
  EXPECT_NO_THROW(validate(config));
  config.train.input_dropout = 0;
  config.ffn.consistency = 0;
  EXPECT_NO_THROW(validate(config));
}

TEST(Validate, ATreesLeavesAreAPowerOfTwo) {
  const auto tree = [](Index hidden, Index leaf, Index depth, Index ranks = 1) {
    return [=](Config& c) {
      c.ffn.kind = "fff";
      c.ffn.hidden = hidden;
      c.ffn.leaf = leaf;
      c.ffn.depth = depth;
      c.parallel.experts = ranks;
    };
  };
  const auto leaves_of = [](const std::function<void(Config&)>& change) {
    Config config;
    change(config);
    validate(config);
    return experts_or_leaves(config);
  };
  EXPECT_EQ(leaves_of(tree(128, 8, 0)), 16);
  EXPECT_EQ(leaves_of(tree(128, 8, 2, 4)), 4) << "ffn.depth counts before ffn.hidden";
  expect_invalid({"ffn.hidden = 96", "ffn.leaf = 8", "ffn.depth"}, tree(96, 8, 0));
  expect_invalid({"ffn.hidden = 8", "ffn.leaf = 8"}, tree(8, 8, 0));
  expect_invalid({"ffn.hidden = 8", "ffn.leaf = 16"}, tree(8, 16, 0));
  expect_invalid({"ffn.depth = 16", "ffn.leaf = 32", "1048576"}, tree(8, 32, 16));
  expect_invalid({"parallel.experts = 8", "4 leaves"}, tree(8, 2, 0, 8));
}

TEST(Validate, NcclIsForGpus) {
  expect_invalid({"parallel.exchange = nccl", "compute.device is cpu"},
                 [](Config& c) { c.parallel.exchange = "nccl"; });
}

TEST(Validate, OverlapIsForTheTreesSums) {
  expect_invalid({"parallel.overlap = on", "parallel.reduction = library"}, [](Config& c) {
    c.parallel.overlap = "on";
    c.parallel.reduction = "library";
  });
}

TEST(Validate, Tf32IsForProductsInFp32OnGpus) {
  const auto tf32 = [](const char* device, const char* dtype) {
    return [=](Config& c) { c.compute = {device, dtype, true}; };
  };
  expect_invalid({"compute.tf32 = true", "compute.device is cpu"}, tf32("cpu", "fp32"));
  expect_invalid({"compute.tf32 = true", "compute.dtype is bf16"}, tf32("cuda", "bf16"));
  Config config;
  tf32("cuda", "fp32")(config);
  EXPECT_NO_THROW(validate(config));
}

TEST(Validate, ScheduleIsNotShorterThanTheRun) {
  expect_invalid({"train.schedule_epochs = 3", "run.epochs = 4"}, [](Config& c) {
    c.run.epochs = 4;
    c.train.schedule_epochs = 3;
  });
}

TEST(Validate, EarlyStoppingHasAnAccuracyToGoBy) {
  const auto patient = [](Config& c) {
    c.run.epochs = 9;
    c.train.patience = 5;
    c.data.validation = 0.1;
  };
  Config config;
  patient(config);
  EXPECT_NO_THROW(validate(config));
  config.data.validation = 0;
  config.run.measure_training = true;
  EXPECT_NO_THROW(validate(config));
  expect_invalid({"train.patience = 5", "data.validation", "run.measure_training = true"}, [&](Config& c) {
    patient(c);
    c.data.validation = 0;
  });
  expect_invalid({"train.patience = 5", "run.steps = 10", "run.epochs"}, [&](Config& c) {
    patient(c);
    c.run.steps = 10;
  });
  expect_invalid({"train.patience = 5", "run.eval_every = 0"}, [&](Config& c) {
    patient(c);
    c.run.eval_every = 0;
  });
}

TEST(Validate, PlateausAreOfASplitThatIsMeasured) {
  Config config;
  config.train.plateau = 3;
  const auto expect_refused = [&](std::initializer_list<std::string> parts) {
    expect_error(ExitCode::kUsage, parts, [&] { validate(config); });
  };
  expect_refused({"train.plateau = 3", "the validation accuracy", "data.validation above 0"});
  config.run.measure_training = true;
  expect_refused({"the validation accuracy"});
  config.train.plateau_of = "training";
  EXPECT_NO_THROW(validate(config));
  config.run.eval_every = 0;
  expect_refused({"train.plateau = 3", "run.eval_every = 0"});
  config.run.eval_every = 1;
  config.run.measure_training = false;
  config.data.validation = 0.1;
  expect_refused({"the training accuracy", "run.measure_training = true"});
  config.train.plateau_of = "validation";
  config.run.steps = 7;
  EXPECT_NO_THROW(validate(config));
}

TEST(Validate, KeysThatWouldDoNothingAreRefused) {
  const auto tree = [](const std::function<void(Config&)>& change) {
    return [=](Config& c) {
      c.ffn.kind = "fff";
      change(c);
    };
  };
  expect_invalid({"ffn.shared = 1", "ffn.kind = fff"}, tree([](Config& c) { c.ffn.shared = 1; }));
  expect_invalid({"ffn.expert_dropout = 0.5"}, tree([](Config& c) { c.ffn.expert_dropout = 0.5; }));
  expect_invalid({"ffn.gating_dropout = 0.5"}, tree([](Config& c) { c.ffn.gating_dropout = 0.5; }));
  expect_invalid({"ffn.capacity_train = 2"}, tree([](Config& c) { c.ffn.capacity_train = 2; }));
  expect_invalid({"ffn.capacity_eval = 2"}, tree([](Config& c) { c.ffn.capacity_eval = 2; }));
  expect_invalid({"ffn.inference = average"}, tree([](Config& c) { c.ffn.inference = "average"; }));
  expect_invalid({"ffn.activation = cube", "relu"}, tree([](Config& c) { c.ffn.activation = "cube"; }));
  Config dense_blocks;
  dense_blocks.ffn.kind = "fff", dense_blocks.ffn.activation = "cube", dense_blocks.ffn.every = 2;
  EXPECT_NO_THROW(validate(dense_blocks));
  const auto clusters = [](const std::function<void(Config&)>& change) {
    return [=](Config& c) {
      c.data.kind = "clusters", c.model.kind = "patch_cnn", c.train.dropout = 0;
      change(c);
    };
  };
  expect_invalid({"data.flip = true", "no images"}, clusters([](Config& c) { c.data.flip = true; }));
  expect_invalid({"data.flip_vertical = true", "no images"}, clusters([](Config& c) { c.data.flip_vertical = true; }));
  expect_invalid({"data.crop_padding = 2", "no images"}, clusters([](Config& c) { c.data.crop_padding = 2; }));
  expect_invalid({"data.rotation = 15", "no images"}, clusters([](Config& c) { c.data.rotation = 15; }));
  expect_invalid({"data.scaling = 0.1", "no images"}, clusters([](Config& c) { c.data.scaling = 0.1; }));
  const std::initializer_list<std::string> no_tokens = {"train.input_dropout = 0.1", "no tokens", "set it to 0"};
  expect_invalid(no_tokens, clusters([](Config& c) { c.train.input_dropout = 0.1; }));
  expect_invalid(no_tokens, [](Config& c) { c.model.kind = "mlp", c.train.input_dropout = 0.1; });
}

TEST(Validate, RunNameStaysInsideItsFolder) {
  expect_invalid({"run.name = ../x"}, [](Config& c) { c.run.name = "../x"; });
  expect_invalid({"run.name = .."}, [](Config& c) { c.run.name = ".."; });
}

Config with_microbatches(Index batch, Index microbatch, Index expert_ranks = 1) {
  Config config;
  config.train.batch = batch;
  config.train.microbatch = microbatch;
  config.ffn.kind = "moe";
  config.ffn.experts = 16;
  config.parallel.experts = expert_ranks;
  return config;
}

TEST(CheckRanks, PowersOfTwoThatDivideTheMicrobatches) {
  const Config eight = with_microbatches(128, 16);
  for (const int world : {1, 2, 4, 8}) EXPECT_NO_THROW(check_ranks(eight, world)) << world;
  const Config twelve = with_microbatches(96, 8);
  for (const int world : {1, 2, 4}) EXPECT_NO_THROW(check_ranks(twelve, world)) << world;
}

TEST(CheckRanks, NamesTheNearestSizes) {
  const auto expect = [](const Config& config, int world, std::initializer_list<std::string> parts) {
    expect_error(ExitCode::kUsage, parts, [&] { check_ranks(config, world); });
  };
  expect(with_microbatches(128, 16), 3, {"3 ranks", "M = 8", "128", "16", "use 2 or 4 ranks"});
  expect(with_microbatches(128, 16), 7, {"use 4 or 8 ranks"});
  expect(with_microbatches(128, 16), 16, {"use 8 ranks", "train.microbatch = 8 for 16 ranks"});
  expect(with_microbatches(128, 16), 100000, {"use 8 ranks."});
  expect(with_microbatches(96, 32), 2, {"M = 3", "use 1 rank,", "train.microbatch = 24 for 2 ranks"});
  expect(with_microbatches(96, 8), 3, {"M = 12", "power of two", "use 2 or 4 ranks"});
  expect(with_microbatches(128, 16, 4), 3, {"multiple of parallel.experts = 4", "use 4 ranks"});
}

TEST(CheckRanks, ExpertRanksDivideTheWorld) {
  EXPECT_NO_THROW(check_ranks(with_microbatches(128, 16, 4), 4));
  EXPECT_NO_THROW(check_ranks(with_microbatches(128, 16, 4), 8));
  expect_error(ExitCode::kUsage, {"parallel.experts = 4", "number of ranks, 2", "use 4 ranks"},
               [] { check_ranks(with_microbatches(128, 16, 4), 2); });
  expect_error(ExitCode::kUsage, {"parallel.experts = 16", "lower parallel.experts"},
               [] { check_ranks(with_microbatches(128, 16, 16), 8); });
}

TEST(CheckRanks, LibraryReductionTakesAnyDivisor) {
  Config config = with_microbatches(96, 8);
  config.parallel.reduction = "library";
  for (const int world : {1, 2, 3, 4, 6, 12}) EXPECT_NO_THROW(check_ranks(config, world)) << world;
  expect_error(ExitCode::kUsage, {"5 ranks", "M = 12", "use 4 or 6 ranks"}, [&] { check_ranks(config, 5); });
}

TEST(ResultDifferences, LayoutAndNamesDoNotCount) {
  Config before, after;
  after.run.name = "other";
  after.run.out = "elsewhere";
  after.run.log_every = 10;
  after.run.eval_every = 0;
  after.data.path = "/moved";
  after.parallel.experts = 2;
  after.parallel.threads = 2;
  after.parallel.timeout = 5;
  after.parallel.overlap = "off";
  after.compute.device = "cuda";
  after.compute.graphs = "off";
  after.checkpoint.every = 3;
  after.checkpoint.keep = 7;
  EXPECT_TRUE(result_differences(before, after).empty());
}

// Only where they steer the training.
TEST(ResultDifferences, EvaluationsCountWhereTrainingGoesByThem) {
  Config before, after;
  before.train.schedule = after.train.schedule = "constant";
  before.run.measure_training = after.run.measure_training = true;
  after.run.eval_every = 2;
  after.run.epochs = 9;
  EXPECT_TRUE(result_differences(before, after).empty());
  before.train.patience = after.train.patience = 5;
  const std::vector<std::string> both = {"run.epochs: 1 -> 9", "run.eval_every: 1 -> 2"};
  EXPECT_EQ(result_differences(before, after), both) << "the evaluation at the end is one more";
  after.run.eval_every = 1;
  EXPECT_TRUE(result_differences(before, after).empty()) << "there is one after every epoch anyway";
}

TEST(ResultDifferences, NamesKeyAndBothValues) {
  Config before, after;
  after.train.lr = 0.002;
  after.run.seed = 2;
  after.parallel.reduction = "library";
  const std::vector<std::string> expected = {"run.seed: 1 -> 2", "train.lr: 0.001 -> 0.002",
                                             "parallel.reduction: tree -> library"};
  EXPECT_EQ(result_differences(before, after), expected);
}

TEST(ResultDifferences, LengthCountsOnlyWhereTheScheduleFollowsIt) {
  Config before, after;
  after.run.epochs = 9;
  EXPECT_EQ(result_differences(before, after), std::vector<std::string>{"run.epochs: 1 -> 9"});
  before.train.schedule_epochs = after.train.schedule_epochs = 10;
  EXPECT_TRUE(result_differences(before, after).empty());
  before.train.schedule_epochs = after.train.schedule_epochs = 0;
  before.train.schedule = after.train.schedule = "constant";
  EXPECT_TRUE(result_differences(before, after).empty());
}

}  // namespace
}  // namespace switchyard
