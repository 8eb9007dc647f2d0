// What needs no ranks works where MPI cannot start, as in a shell inside srun on a cluster whose SLURM does not speak
// this MPI's PMI.
#include "mistakes.hpp"
#include "study_program.hpp"

namespace switchyard::test {
namespace {

class WithoutMpi : public StudyProgram {
 protected:
  // The program, with what srun tells a process of its own.
  Outcome inside_srun(const Words& words) const {
    const std::map<std::string, std::string> step = {
        {"SLURM_JOB_ID", "1"},   {"SLURM_JOBID", "1"},  {"SLURM_STEPID", "0"}, {"SLURM_STEP_ID", "0"},
        {"SLURM_PROCID", "0"},   {"SLURM_NPROCS", "1"}, {"SLURM_NTASKS", "1"}, {"SLURM_LOCALID", "0"},
        {"SLURM_NODELIST", "a"}, {"PMI_RANK", "0"}};
    return Running(Words{SWITCHYARD_PROGRAM} + words, folder_.path(), step).wait();
  }
};

TEST_F(WithoutMpi, HelpInspectionAndStudiesNeedNone) {
  ASSERT_EQ(train(1).code, 0);
  ASSERT_NE(inside_srun({"ranks"}).code, 0) << "MPI can start here: this test sees nothing";
  for (const Words& words : {Words{"--version"},
                             {"--help"},
                             {"train", "--help"},
                             {"bench", "kernels", "--help"},
                             {"study", "--help"},
                             {"inspect", "small.cfg"},
                             {"inspect", "runs/small/results.h5"},
                             {"inspect", "runs/small/results.h5", "--routing"},
                             {"inspect", "runs/small/checkpoint-00000009.h5"},
                             {"study", "list", "tiny.cfg"},
                             {"study", "plan", "tiny.cfg", "--no-measure"},
                             {"study", "status", "tiny.cfg"}}) {
    const Outcome outcome = inside_srun(words);
    EXPECT_EQ(outcome.code, 0) << testing::PrintToString(words) << outcome;
    EXPECT_NE(outcome.out, "") << testing::PrintToString(words);
    EXPECT_EQ(outcome.err, "") << testing::PrintToString(words);
  }
  EXPECT_EQ(inside_srun({"inspect", "none.h5"}).code, kFailure);
  EXPECT_EQ(inside_srun({"trian"}).code, kUsage);
}

TEST_F(WithoutMpi, OneOfSeveralProcessesInspects) {
  ASSERT_EQ(train(1).code, 0);
  const Outcome alone = Program::run(1, {"inspect", "runs/small/results.h5"});
  const Outcome beside_another = Program::run(2, {"inspect", "runs/small/results.h5"});
  EXPECT_EQ(beside_another.code, 0) << beside_another;
  EXPECT_EQ(beside_another.out, alone.out);
  const Outcome wrong = Program::run(2, {"inspect", "none.h5"});
  EXPECT_EQ(wrong.code, kFailure) << wrong;
  EXPECT_EQ(wrong.err.find("none.h5"), wrong.err.rfind("none.h5")) << wrong;
}

TEST_F(WithoutMpi, RanksAreCounted) {
  EXPECT_EQ(Program::run(4, {"ranks"}).out, "ranks 4\n");
  EXPECT_EQ(Program::run(1, {"ranks"}).out, "ranks 1\n");
  const Outcome wrong = Program::run(2, {"ranks", "4"});
  EXPECT_EQ(wrong.code, kUsage);
  expect_part(wrong.err, "\"4\" is one word too many");
}

}  // namespace
}  // namespace switchyard::test
