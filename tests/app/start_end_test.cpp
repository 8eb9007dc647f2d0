// A rank that stops, or is killed, where MPI itself waits for it without end: the job ends within parallel.timeout,
// with a message. So does an mpirun that would stay for good because a rank was killed at its start.
#include <csignal>

#include "program.hpp"

namespace switchyard::test {
namespace {

using StartAndEnd = Program;

constexpr double kTimeout = 2;  // seconds, as the program is told here
constexpr double kMore = 18;    // for all else, on a machine with other work

struct Place {
  const char* function;  // of MPI
  const char* message;   // what rank 0 says that it waited in
};

constexpr Place kPlaces[] = {{"MPI_Init", "MPI_Init"},
                             {"MPI_Comm_dup", "copying MPI's communicator"},
                             {"MPI_Comm_split", "splitting ranks into groups"},
                             {"MPI_Finalize", "MPI_Finalize"}};

TEST_F(StartAndEnd, OfWhichOneRankStopsAreEndedByTheOther) {
  folder_.write("timeout.cfg", "[parallel]\ntimeout = 2\n");             // read before MPI starts
  std::filesystem::create_symlink(STOP_IN_MPI, path("stop_in_mpi.so"));  // names in LD_PRELOAD end at spaces
  std::vector<std::unique_ptr<Running>> running;
  for (const auto& [function, message] : kPlaces)
    running.push_back(std::make_unique<Running>(
        mpirun(2) + Words{"env", "LD_PRELOAD=./stop_in_mpi.so", SWITCHYARD_PROGRAM} +
            training({"--config", "timeout.cfg", "--run.name", function, "--parallel.experts", "2"}),
        folder_.path(), std::map<std::string, std::string>{{"STOP_IN", function}, {"STOP_RANK", "1"}}));
  for (std::size_t i = 0; i < running.size(); ++i) {
    SCOPED_TRACE(kPlaces[i].function);
    const Outcome outcome = running[i]->wait(kTimeout + kMore);
    EXPECT_EQ(outcome.code, 1) << outcome;
    const std::string wanted =
        fmt::format("switchyard: {}: rank 0 waited 2 s for the other ranks. ", kPlaces[i].message);
    EXPECT_NE(outcome.err.find(wanted), std::string::npos) << outcome;
  }
}

TEST_F(StartAndEnd, AJobOfWhichARankIsKilledAtItsStartEnds) {
  for (int victim : {0, 1, 0, 1}) {
    const auto running = start(2, training({"--parallel.timeout", "2", "--run.epochs", "100000", "--overwrite"}));
    ASSERT_TRUE(wait_until([&] { return running->ranks().size() == 2 || !running->is_running(); }));
    if (const auto ranks = running->ranks(); ranks.size() == 2) kill(ranks[static_cast<std::size_t>(victim)], SIGKILL);
    const Outcome outcome = running->wait(kTimeout + kMore);
    EXPECT_GT(outcome.code, 128) << outcome;
    EXPECT_NE(outcome.err.find("was ended by signal "), std::string::npos) << outcome;
  }
}

}  // namespace
}  // namespace switchyard::test
