// The configurations and studies in configs/.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "config/config.hpp"
#include "config/study.hpp"
#include "core/router_names.hpp"

namespace switchyard {
namespace {

Config shipped(const std::string& name) { return load_config({SWITCHYARD_CONFIGS "/" + name + ".cfg"}); }

TEST(ShippedConfigs, AllAreValidAndNamedAsTheirFile) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SWITCHYARD_CONFIGS)) {
    if (entry.path().extension() != ".cfg") continue;
    ++num_files;
    const Config config = load_config({entry.path().string()});
    EXPECT_NO_THROW(validate(config)) << entry.path();
    EXPECT_NO_THROW(check_ranks(config, 2)) << entry.path();
    EXPECT_EQ(config.run.name, entry.path().stem()) << "runs must not share a folder";
  }
  EXPECT_GE(num_files, 6);
}

// A comparison of models is fair only when all else is equal.
TEST(ShippedConfigs, ModelsOfAComparisonDifferInTheirFeedForwardNetworkOnly) {
  for (const std::string family : {"quickstart-", "vit-seed-"})
    for (const std::string model : {"switch", "random"})
      for (const std::string& difference : result_differences(shipped(family + "dense"), shipped(family + model)))
        EXPECT_EQ(difference.rfind("ffn.", 0), 0u) << family << model << ": " << difference;
}

TEST(ShippedConfigs, TheStudysModelAndTraining) {
  for (const std::string model : {"dense", "switch", "random"}) {
    const Config config = shipped("vit-seed-" + model);
    EXPECT_EQ(config.data.kind, "cifar10");
    EXPECT_EQ(config.data.crop_padding, 4);
    EXPECT_TRUE(config.data.flip);
    EXPECT_EQ(config.model.layers, 12);
    EXPECT_EQ(config.model.width, 300);
    EXPECT_EQ(config.model.heads, 12);
    EXPECT_EQ(config.model.patch, 4);
    EXPECT_EQ(config.model.head_hidden, 3072);
    EXPECT_EQ(config.model.positions, 300);
    EXPECT_EQ(config.ffn.hidden, 1024);
    EXPECT_EQ(config.ffn.expert_init, "independent");
    EXPECT_EQ(config.train.optimizer, "adam");
    EXPECT_EQ(config.train.lr, 2.5e-4);
    EXPECT_EQ(config.train.weight_decay, 1e-4);
    EXPECT_EQ(config.train.schedule_epochs, 350);
    EXPECT_EQ(config.train.dropout, 0.1);
  }
  EXPECT_EQ(shipped("vit-seed-switch").ffn.inference, "route");
  EXPECT_EQ(shipped("vit-seed-random").ffn.inference, "average");
  EXPECT_EQ(shipped("vit-seed-random").ffn.granularity, "batch");
}

TEST(ShippedStudies, AllExpandUnderTheNameOfTheirFile) {
  std::map<std::string, std::size_t> num_runs;
  for (const auto& entry : std::filesystem::directory_iterator(SWITCHYARD_CONFIGS "/studies")) {
    const std::string name = entry.path().stem();
    const Study study = read_study(entry.path());
    EXPECT_EQ(study.name, name) << "studies must not share a folder";
    num_runs[name] = study.runs.size();
  }
  const std::map<std::string, std::size_t> expected = {{"number-of-experts", 3 * 3},
                                                       {"number-of-experts-small", 5 * 3},
                                                       {"batch-size", 3 * 3 * 3},
                                                       {"batch-size-small", 27},
                                                       {"training-time", 9},
                                                       {"training-time-small", 9},
                                                       {"parameters", 5},
                                                       {"parameters-small", 5},
                                                       {"strong-scaling", 2 * 5 * 3},
                                                       {"weak-scaling", 30},
                                                       {"chen", 4 * 4 * 10},
                                                       {"fff-table1", 4 * 5 * 10},
                                                       {"fff-table2", 5 * 3 * 3},
                                                       {"fff-table3", 7 * 3},
                                                       {"shazeer-table6", 6 * 3},
                                                       {"routers", (kRouterNames.size() - 1) * 3}};
  EXPECT_EQ(num_runs, expected);
}

// Full-size studies repeat the models of vit-seed-*.cfg.
TEST(ShippedStudies, ModelsAreTheStudysOwn) {
  for (const std::string study : {"number-of-experts", "batch-size", "training-time"})
    for (const StudyRun& run : read_study(SWITCHYARD_CONFIGS "/studies/" + study + ".cfg").runs) {
      Config like = shipped(run.config.ffn.kind == "dense" ? "vit-seed-dense" : "vit-seed-" + run.config.ffn.router);
      like.run.seed = run.config.run.seed, like.run.epochs = run.config.run.epochs;
      like.train.batch = run.config.train.batch, like.ffn.experts = run.config.ffn.experts;
      if (run.config.ffn.kind == "dense") like.ffn = run.config.ffn, like.ffn.hidden = 1024;
      if (like.ffn.router == "switch") like.ffn.balance_loss = -1;  // which is 0.01 there
      EXPECT_EQ(result_differences(like, run.config), std::vector<std::string>()) << study << ": " << run.name;
    }
}

}  // namespace
}  // namespace switchyard
