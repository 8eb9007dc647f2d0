// main() of tests that run under mpirun: the exit code is the worst of all ranks', and running no test is a failure.
// Ranks above 0 print only when something fails.
#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (rank != 0) delete listeners.Release(listeners.default_result_printer());
  struct FailurePrinter : testing::EmptyTestEventListener {
    int rank = 0;
    void OnTestPartResult(const testing::TestPartResult& result) override {
      if (result.failed())
        std::fprintf(stderr, "[rank %d] %s:%d: %s\n", rank, result.file_name() ? result.file_name() : "?",
                     result.line_number(), result.message());
    }
  };
  auto* printer = new FailurePrinter;
  printer->rank = rank;
  if (rank != 0)
    listeners.Append(printer);
  else
    delete printer;
  int failed = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) failed = 1;
  int any_failed = 0;
  MPI_Allreduce(&failed, &any_failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return std::max(failed, any_failed);
}
