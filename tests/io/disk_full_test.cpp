// A disk that is full while saving: the same error on every rank, no hang, and what was there before is untouched.
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>

#include "io/checkpoint.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

const MPI_Comm kWorld = MPI_COMM_WORLD;
constexpr Index kLargeRows = 20'000;  // 8 experts x 20000 x 3 floats: 1.9 MB an array

// No file of this process may grow beyond `bytes`.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
};

void save(const std::filesystem::path& path, Index rows = kLargeRows) {
  save_checkpoint(kWorld, path, some_info(), arrays_of_rank(kWorld, true, rows).slices);
}

void expect_only_the_first_is_left(const TemporaryFolder& folder) {
  MPI_Barrier(kWorld);
  EXPECT_FALSE(std::filesystem::exists(folder / "checkpoint-00000002.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "checkpoint-00000002.h5.tmp"));
  std::vector<std::string> warnings;
  EXPECT_EQ(newest_valid_checkpoint(folder.path(), warnings), folder / "checkpoint-00000001.h5");
  EXPECT_TRUE(warnings.empty());
  MPI_Barrier(kWorld);  // before any rank saves again
}

TEST(DiskFull, RankZeroCannotMakeRoom) {
  const TemporaryFolder folder(kWorld);
  save(folder / "checkpoint-00000001.h5");
  {
    const FileSizeLimit limit(1'000'000);
    const std::string message = message_of([&] { save(folder / "checkpoint-00000002.h5"); });
    EXPECT_TRUE(contains(message, "no room for another") && contains(message, "checkpoint-00000002.h5")) << message;
  }
  expect_only_the_first_is_left(folder);
  save(folder / "checkpoint-00000002.h5");
  EXPECT_TRUE(describe_checkpoint(folder / "checkpoint-00000002.h5").verifies);
}

// The room was there, but a rank's own write fails half way: that rank is named, none hangs.
TEST(DiskFull, OneRankCannotWrite) {
  if (size_of(kWorld) == 1) GTEST_SKIP() << "needs a second rank";
  const TemporaryFolder folder(kWorld);
  save(folder / "checkpoint-00000001.h5");
  const int last = size_of(kWorld) - 1;
  {
    const FileSizeLimit limit(rank_in(kWorld) == last ? 2'500'000 : RLIM_INFINITY);
    const std::string message = message_of([&] { save(folder / "checkpoint-00000002.h5"); });
    EXPECT_TRUE(contains(message, "rank " + std::to_string(last) + ":") && contains(message, "cannot write array"))
        << message;
  }
  expect_only_the_first_is_left(folder);
}

TEST(DiskFull, AFullFileSystem) {
  const TemporaryFolder folder(kWorld);
  const std::filesystem::path volume = folder / "volume";
  int mounted = 0;
  if (rank_in(kWorld) == 0) {
    std::filesystem::create_directory(volume);
    mounted = mount("none", volume.c_str(), "tmpfs", 0, "size=6m") == 0;
  }
  MPI_Bcast(&mounted, 1, MPI_INT, 0, kWorld);
  if (!mounted) GTEST_SKIP() << "may not mount a file system here";
  save(volume / "checkpoint-00000001.h5");
  const std::string message = message_of([&] { save(volume / "checkpoint-00000002.h5"); });
  EXPECT_TRUE(contains(message, "No space left on device")) << message;
  MPI_Barrier(kWorld);  // rank 0 removes the temporary file
  std::vector<std::string> warnings;
  EXPECT_EQ(newest_valid_checkpoint(volume, warnings), volume / "checkpoint-00000001.h5");
  EXPECT_FALSE(std::filesystem::exists(volume / "checkpoint-00000002.h5.tmp"));
  MPI_Barrier(kWorld);
  if (rank_in(kWorld) == 0) {
    EXPECT_EQ(umount2(volume.c_str(), MNT_DETACH), 0);
  }
}

}  // namespace
}  // namespace switchyard::io::testing
