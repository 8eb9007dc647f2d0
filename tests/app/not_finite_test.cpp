// A loss that is not finite ends the run: the message names step and layer, the last good checkpoint is kept.
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

// The rate rises until the parameters overflow.
const Words kTooFast = {"--run.steps",      "400", "--train.optimizer",  "sgd", "--train.lr",           "1e6",
                        "--run.eval_every", "0",   "--checkpoint.every", "1",   "--train.warmup_steps", "390"};

TEST_F(Mistakes, LossThatIsNotFinite) {
  const std::string message = expect_message(2, training(kTooFast + Words{"--parallel.experts", "2"}), kDiverged,
                                             {"not finite is ", "step ", "train.lr"});
  const Index newest = newest_checkpoint();
  ASSERT_GT(newest, 0);
  EXPECT_NE(message.find(fmt::format("step {}", newest + 1)), std::string::npos)
      << "every step but the last was saved: " << newest << "\n"
      << message;
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(newest));

  EXPECT_EQ(io::describe_results(run_folder() / "results.h5").attributes.at("status"), "diverged");

  // On one rank it is the same.
  const std::string alone = expect_message(1, training(kTooFast + Words{"--overwrite"}), kDiverged, {"not finite"});
  EXPECT_EQ(alone, message);
}

// Every step's loss is finite, the parameters that the last one leaves are beyond all measure.
TEST_F(Mistakes, TestLossThatIsNotFinite) {
  const Words too_fast = {"--run.steps",          "1",   "--train.optimizer", "adamw",
                          "--train.weight_decay", "1e6", "--train.lr",        "1e6"};
  expect_message(2, training(too_fast), kDiverged,
                 {"step 1: the test loss is not a number", "not finite is ", "train.lr"});
  EXPECT_EQ(newest_checkpoint(), -1);
  const io::ResultsSummary results = io::describe_results(run_folder() / "results.h5");
  EXPECT_EQ(results.attributes.at("status"), "diverged");
  EXPECT_EQ(results.num_steps, 1);
}

}  // namespace
}  // namespace switchyard::test
