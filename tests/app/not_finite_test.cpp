// A loss that is not finite ends the run: the message names step and layer, the last good checkpoint is kept.
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

// The rate rises until the parameters overflow.
const Words kTooFast = {"--run.steps",          "400", "--train.optimizer",  "sgd", "--train.lr", "1e6",
                        "--train.warmup_steps", "390", "--checkpoint.every", "1"};

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

}  // namespace
}  // namespace switchyard::test
