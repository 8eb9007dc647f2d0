// A process that is killed while it saves leaves the older checkpoint as it was, and nothing that looks like a newer
// one.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "io/checkpoint.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

constexpr Index kRows = 400'000;  // 8 experts x 400000 x 3 floats: 38 MB an array, time enough to be killed in

using namespace std::chrono_literals;

// Saves one checkpoint after another. The child is an MPI program of one rank; this process itself never starts MPI.
pid_t start_saving(const std::filesystem::path& folder) {
  const pid_t child = fork();
  if (child != 0) return child;
  MPI_Init(nullptr, nullptr);
  const Arrays arrays = arrays_of_rank(MPI_COMM_WORLD, true, kRows);
  for (Index step = 1;; ++step)
    save_checkpoint(MPI_COMM_WORLD, checkpoint_path(folder, step), some_info(), arrays.slices);
}

void wait_for(const std::filesystem::path& path, pid_t child) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!std::filesystem::exists(path)) {
    ASSERT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "the saving process ended by itself";
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "no " << path;
    std::this_thread::sleep_for(200us);
  }
}

void kill_now(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(KilledSave, TheOlderCheckpointIsFound) {
  int num_killed_half_way = 0;
  for (const auto delay : {0ms, 5ms, 40ms}) {
    const TemporaryFolder folder;
    const pid_t child = start_saving(folder.path());
    const auto half = folder / "checkpoint-00000002.h5.tmp";
    wait_for(half, child);
    std::this_thread::sleep_for(delay);
    kill_now(child);
    num_killed_half_way += std::filesystem::exists(half);
    std::vector<std::string> warnings;
    const auto found = newest_valid_checkpoint(folder.path(), warnings);
    ASSERT_TRUE(found.has_value());
    EXPECT_TRUE(warnings.empty()) << warnings.front();
    remove_old_checkpoints(folder.path(), 2, 1);
    EXPECT_FALSE(std::filesystem::exists(half));
    EXPECT_TRUE(std::filesystem::exists(*found));
  }
  EXPECT_GE(num_killed_half_way, 1) << "no kill hit a save";
}

TEST(KilledSave, TheNextRunSavesUnderTheSameNames) {
  const TemporaryFolder folder;
  for (int run = 0; run < 3; ++run) {
    const pid_t child = start_saving(folder.path());
    wait_for(folder / "checkpoint-00000002.h5.tmp", child);
    kill_now(child);
    remove_old_checkpoints(folder.path(), 2, 1);
  }
  const pid_t child = start_saving(folder.path());
  wait_for(folder / "checkpoint-00000003.h5", child);
  kill_now(child);
}

}  // namespace
}  // namespace switchyard::io::testing
