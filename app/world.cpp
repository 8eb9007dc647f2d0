#include "app/world.hpp"

#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "comm/mpi.hpp"

namespace switchyard {

namespace {

// Before the configuration is read; parallel.timeout rules afterwards.
constexpr Index kSetupTimeoutSeconds = 600;

}  // namespace

World::World(int* argc, char*** argv) {
  int provided = 0;
  MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  comm_ = make_mpi_communicator(MPI_COMM_WORLD, kSetupTimeoutSeconds);
}

World::~World() {
  comm_.reset();
  // mpirun may kill this process as soon as another one has left.
  std::fflush(nullptr);
  MPI_Finalize();
}

void World::agree(const std::string& problem, ExitCode code) {
  std::vector<int> codes(static_cast<std::size_t>(size()));
  const int own = static_cast<int>(code);
  all_gather(*comm_, "agreement on errors", &own, sizeof(own), codes.data());
  if (std::all_of(codes.begin(), codes.end(), [](int each) { return each == 0; })) return;

  std::string report;
  const std::vector<std::string> problems = gather_texts(*comm_, "agreement on errors", problem);
  if (rank() == 0) {
    // Rank 0 needs no name for what it found alone, nor where all ranks found the same.
    const bool one_voice = std::all_of(problems.begin(), problems.end(), [&](const std::string& each) {
      return !problems[0].empty() && (each.empty() || each == problems[0]);
    });
    if (one_voice) report = problems[0];
    for (std::size_t i = 0; i < problems.size() && !one_voice; ++i)
      if (!problems[i].empty()) report += fmt::format("{}rank {}: {}", report.empty() ? "" : "\n", i, problems[i]);
  }
  const int worst = *std::find_if(codes.begin(), codes.end(), [](int each) { return each != 0; });
  throw AgreedError(broadcast_text(*comm_, "agreement on errors", report), static_cast<ExitCode>(worst));
}

}  // namespace switchyard
