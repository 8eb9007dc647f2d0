// upcycle and export at the command line: dense models as mixtures and back, on any layout.
#include <csignal>

#include "io/checkpoint.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

constexpr const char* kDense = "runs/dense/checkpoint-00000003.h5";
constexpr const char* kMixture = "runs/small/checkpoint-00000003.h5";
const Words kMixtureKeys = {"--ffn.kind",  "moe", "--ffn.router",      "top_k",
                            "--ffn.top_k", "1",   "--ffn.renormalise", "true"};

class Convert : public Mistakes {
 protected:
  void train_dense() {
    const Outcome dense = train(2, {"--run.name", "dense", "--ffn.kind", "dense", "--run.epochs", "1"});
    ASSERT_EQ(dense.code, 0) << dense;
  }
  void train_mixture(const Words& words = {}) {
    const Outcome mixture = train(2, Words{"--run.epochs", "1", "--ffn.router", "random"} + words);
    ASSERT_EQ(mixture.code, 0) << mixture;
  }
  Outcome evaluate(int ranks, const std::string& checkpoint, const Words& words = {}) {
    const Outcome outcome = run(ranks, Words{"eval", checkpoint} + words);
    EXPECT_EQ(outcome.code, 0) << outcome;
    return outcome;
  }
};

TEST_F(Convert, AnUpcycledModelAnswersAsTheDenseOneAndTrainsOn) {
  train_dense();
  const std::string dense = evaluate(2, kDense).test_line();
  std::string digest;
  for (const auto& [ranks, expert_ranks] : {std::pair{1, "1"}, {2, "2"}, {4, "1"}, {4, "4"}}) {
    SCOPED_TRACE(fmt::format("{} ranks, parallel.experts = {}", ranks, expert_ranks));
    const Outcome upcycled = run(ranks, Words{"upcycle", kDense, "--output", "new.h5", "--overwrite"} + kMixtureKeys +
                                            Words{"--parallel.experts", expert_ranks});
    ASSERT_EQ(upcycled.code, 0) << upcycled;
    EXPECT_EQ(upcycled.line("checkpoint "), "new.h5");
    if (digest.empty()) digest = upcycled.digest();
    EXPECT_EQ(upcycled.digest(), digest);
    const Outcome evaluated = evaluate(ranks, "new.h5");
    EXPECT_EQ(evaluated.digest(), digest);
    EXPECT_EQ(evaluated.test_line(), dense);
  }
  const std::string origin = io::read_checkpoint_info(path("new.h5")).attributes.at("origin");
  EXPECT_NE(origin.find(std::string(kDense) + " after step 3"), std::string::npos) << origin;

  const Words going_on = Words{"--run.name", "up", "--run.epochs", "1", "--overwrite"};
  const Words resuming = kMixtureKeys + Words{"--run.epochs", "1", "--resume", "new.h5", "--run.name"};
  const Outcome on_two = train(2, resuming + Words{"up"});
  const Outcome on_four = train(4, resuming + Words{"up4", "--parallel.experts", "2"});
  ASSERT_EQ(on_two.code, 0) << on_two;
  EXPECT_EQ(on_two.line("resuming "), "new.h5 after step 0");
  EXPECT_EQ(logged_steps(path("runs/up/results.h5")), steps_up_to(3));
  EXPECT_EQ(on_four.digest(), on_two.digest());
  const Outcome again = train(2, resuming + Words{"up"});
  EXPECT_EQ(again.code, 2) << again;
  EXPECT_NE(again.err.find("runs/up already holds a run"), std::string::npos) << "a run is not begun anew unasked";
  EXPECT_NE(train(2, kMixtureKeys + going_on).digest(), on_two.digest()) << "it did not begin with the dense model";
}

// As the first checkpoint of a run it is what the run goes on from.
TEST_F(Convert, NoiseSetsExpertsApartInARunsOwnFolder) {
  train_dense();
  const std::string first = "runs/up/checkpoint-00000000.h5";
  const Words upcycle = Words{"upcycle", kDense} + kMixtureKeys + Words{"--output"};
  const std::string plain = run(2, upcycle + Words{"plain.h5"}).digest();
  const Outcome noisy = run(2, upcycle + Words{first, "--noise", "0.1"});
  ASSERT_EQ(noisy.code, 0) << noisy;
  EXPECT_NE(noisy.digest(), plain);
  EXPECT_EQ(run(1, upcycle + Words{"again.h5", "--noise", "0.1"}).digest(), noisy.digest());
  EXPECT_NE(run(1, upcycle + Words{"other.h5", "--noise", "0.1", "--run.seed", "4"}).digest(), noisy.digest());
  const Outcome trained = train(2, kMixtureKeys + Words{"--run.name", "up", "--run.epochs", "1", "--resume"});
  EXPECT_EQ(trained.code, 0) << trained;
  EXPECT_EQ(trained.line("resuming "), first + " after step 0");
}

TEST_F(Convert, AnExportedModelAnswersAsTheMixturesAverage) {
  train_mixture({"--ffn.inference", "average"});
  const std::string averaged = evaluate(2, kMixture).test_line();
  std::string digest;
  for (const auto& [ranks, expert_ranks] : {std::pair{1, "1"}, {2, "2"}, {4, "2"}}) {
    SCOPED_TRACE(fmt::format("{} ranks, parallel.experts = {}", ranks, expert_ranks));
    const Outcome exported = run(ranks, {"export", kMixture, "--merge", "average", "--output", "dense.h5",
                                         "--overwrite", "--parallel.experts", expert_ranks});
    ASSERT_EQ(exported.code, 0) << exported;
    EXPECT_EQ(exported.err, "");
    if (digest.empty()) digest = exported.digest();
    EXPECT_EQ(exported.digest(), digest);
  }
  const Outcome dense = evaluate(4, "dense.h5");
  EXPECT_NE(dense.out.find("ffn dense 20, fp32\n"), std::string::npos) << dense;
  EXPECT_EQ(dense.test_line(), averaged);
  EXPECT_EQ(dense.digest(), digest);
  const Outcome trained =
      train(2, {"--ffn.kind", "dense", "--run.name", "merged", "--run.epochs", "1", "--resume", "dense.h5"});
  EXPECT_EQ(trained.code, 0) << trained;
}

TEST_F(Convert, ExportWarnsWhereTheMixtureRoutes) {
  train_mixture();
  const Words to_dense = {"export", kMixture, "--merge", "average", "--output", "dense.h5", "--overwrite"};
  const Outcome random = run(2, to_dense);
  EXPECT_EQ(random.code, 0) << random;
  EXPECT_NE(random.err.find("warning: dense.h5 equals"), std::string::npos) << random;
  EXPECT_EQ(random.err.find("gates"), std::string::npos) << random;
  train_mixture({"--ffn.router", "switch", "--overwrite"});
  const Outcome gated = run(2, to_dense);
  EXPECT_EQ(gated.code, 0) << gated;
  EXPECT_NE(gated.err.find("ffn.inference = average: the gates of ffn.router = switch are left out"), std::string::npos)
      << gated;
  EXPECT_EQ(evaluate(2, "dense.h5").test_line(), evaluate(2, kMixture, {"--ffn.inference", "average"}).test_line());
}

// A file that is being written is written to its end, where a signal would leave a temporary one behind.
TEST_F(Convert, NoSignalLeavesHalfAFile) {
  ASSERT_EQ(train(2, {"--ffn.kind", "dense", "--ffn.hidden", "20000", "--run.steps", "1"}).code, 0);
  Running running(
      Words{SWITCHYARD_PROGRAM, "upcycle", "runs/small/checkpoint-00000001.h5", "--output", "new.h5"} + kMixtureKeys,
      folder_.path());
  const auto temporary = path("new.h5.tmp");
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(temporary) || !running.is_running(); }));
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) running.send(signal);
  const Outcome outcome = running.wait();
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_FALSE(std::filesystem::exists(temporary));
  EXPECT_TRUE(io::describe_checkpoint(path("new.h5")).verifies);
}

TEST_F(Convert, ExplainsMistakes) {
  train_dense();
  train_mixture();
  std::filesystem::create_directory(path("folder"));
  const Words upcycle = {"upcycle", kDense, "--output", "new.h5"};
  const Words to_dense = {"export", kMixture, "--merge", "average", "--output", "new.h5"};
  const auto refused = [&](const Words& words, const Words& parts, int code = kUsage, int ranks = 1) {
    expect_message(ranks, words, code, parts);
    EXPECT_FALSE(std::filesystem::exists(path("new.h5")));
  };
  refused({"upcycle"}, {"upcycle", "name a checkpoint"});
  refused({"export"}, {"export", "name a checkpoint"});
  refused({"upcycle", kDense}, {"--output NEW.h5"});
  refused({"export", kMixture, "--merge", "average"}, {"--output NEW.h5"});
  refused({"export", kMixture, "--output", "new.h5"}, {"--merge average"});
  refused({"export", kMixture, "--output", "new.h5", "--merge", "sum"}, {"\"sum\"", "average"});
  refused({"upcycle", "none.h5", "--output", "new.h5"}, {"none.h5", "no such file"}, kFailure);
  refused({"upcycle", kMixture, "--output", "new.h5"}, {kMixture, "ffn.kind = moe", "dense model"});
  refused({"export", kDense, "--merge", "average", "--output", "new.h5"}, {kDense, "ffn.kind = dense", "no experts"});
  refused({"upcycle", kDense, "--output", kMixture}, {kMixture, "--overwrite"}, kUsage, 2);
  refused({"upcycle", kDense, "--output", "runs/small/checkpoint-00000000.h5"},
          {"runs/small holds a run already", "--overwrite"});
  refused({"upcycle", kDense, "--output", "runs/small/results.h5", "--overwrite"},
          {"runs/small/results.h5", "replaces only a checkpoint"});
  std::filesystem::create_symlink(path(kMixture), path("link.h5"));
  refused({"upcycle", kDense, "--output", "link.h5", "--overwrite"}, {"link.h5", "not a file of its own"});
  refused({"upcycle", kDense, "--output", "folder", "--overwrite"}, {"folder", "is a folder"});
  refused({"upcycle", kDense, "--output", "small.cfg/new.h5"}, {"small.cfg/new.h5", "folder"}, kFailure, 2);
  refused(upcycle + Words{"--noise", "-0.1"}, {"--noise -0.1", "at least 0"});
  refused(upcycle + Words{"--noise", "some"}, {"noise", "some"});
  refused(upcycle + Words{"--ffn.shared", "1"}, {"ffn.shared = 1", "ffn.shared = 0"});
  refused(upcycle + Words{"--ffn.kind", "dense"}, {"ffn.kind = dense", "moe"});
  refused(upcycle + Words{"--model.heads", "4"}, {kDense, "model.heads: 3 -> 4"});
  refused(upcycle + Words{"--ffn.hidden", "21"}, {kDense, "ffn.hidden: 20 -> 21"});
  refused(upcycle + Words{"--ffn.experts", "5", "--parallel.experts", "2"}, {"parallel.experts = 2"});
  refused(upcycle + Words{"--ffn.every", "3"}, {"ffn.every = 3"});
  refused(upcycle + Words{"--data.synthetic_size", "16"}, {kDense, "embedding.positions"}, kFailure);
  refused(to_dense + Words{"--model.heads", "4"}, {kMixture, "model.heads: 3 -> 4"});
}

}  // namespace
}  // namespace switchyard::test
