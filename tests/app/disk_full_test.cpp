// A disk that fills up while a run writes: the run ends with a message, what was written before is whole, and with room
// again the run goes on to the same result.
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

constexpr Index kSteps = 120;
const Words kLong = {"--run.epochs", "40", "--run.eval_every", "20"};

class DiskFull : public Mistakes {
 protected:
  void SetUp() override {
    whole_ = train(1, kLong + Words{"--run.out", "whole"});
    ASSERT_EQ(whole_.code, 0) << whole_;
  }

  void expect_message_of(const Outcome& outcome, const char* file) {
    EXPECT_EQ(outcome.code, kFailure) << outcome;
    const std::string message = outcome.err.substr(0, outcome.err.find_last_not_of('\n') + 1);
    EXPECT_TRUE(message.starts_with("switchyard: ")) << outcome;
    EXPECT_NE(message.find(file), std::string::npos) << outcome;
    EXPECT_EQ(message.find('\n'), std::string::npos) << "one paragraph\n" << outcome;
  }

  void expect_it_goes_on(const Words& words = {}) {
    const Outcome resumed = train(2, kLong + words + Words{"--resume"});
    EXPECT_EQ(resumed.code, 0) << resumed;
    EXPECT_EQ(resumed.digest(), whole_.digest());
    EXPECT_EQ(resumed.test_line(), whole_.test_line());
  }

  Outcome whole_;
};

// No file of one rank may grow beyond a size, as under `ulimit -f`: what it writes fails, what others write does not.
void limit_file_size(pid_t pid, rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &limit, nullptr), 0);
}

class OneRanksFiles : public DiskFull, public testing::WithParamInterface<std::size_t> {};

TEST_P(OneRanksFiles, CannotGrow) {
  const auto running = start(
      2, training(kLong + Words{"--run.epochs", "100000", "--checkpoint.every", "1", "--train.schedule", "constant"}));
  ASSERT_TRUE(wait_until([&] { return io::list_checkpoints(run_folder()).size() == 2; }));
  const auto ranks = running->ranks();
  ASSERT_EQ(ranks.size(), 2u);
  limit_file_size(ranks[GetParam()], 10'000);
  expect_message_of(running->wait(), "runs/small/");
  EXPECT_GT(newest_checkpoint(), 0);
  const io::ResultsSummary results = io::describe_results(run_folder() / "results.h5");
  EXPECT_TRUE(results.readable) << results.problem;
  EXPECT_GE(results.num_steps, newest_checkpoint()) << "rows of every step that was saved";
  if (GetParam() != 0) {  // rank 0, which writes results, could write no more
    EXPECT_EQ(results.attributes.at("status"), "failed");
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, OneRanksFiles, testing::Values(0u, 1u),
                         [](const auto& each) { return fmt::format("rank_{}", each.param); });

// A file system of so many bytes, where the tests may mount one.
class SmallDisk {
 public:
  explicit SmallDisk(const fs::path& folder) : folder_(folder) { fs::create_directories(folder); }
  ~SmallDisk() {
    if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mount(std::uintmax_t bytes) {
    mounted_ = ::mount("none", folder_.c_str(), "tmpfs", 0, fmt::format("size={}", bytes).c_str()) == 0;
    return mounted_;
  }
  bool resize(std::uintmax_t bytes) {
    return ::mount("none", folder_.c_str(), "tmpfs", MS_REMOUNT, fmt::format("size={}", bytes).c_str()) == 0;
  }

 private:
  fs::path folder_;
  bool mounted_ = false;
};

// Each size runs out at another place: before the first step, at the first checkpoint, at a later one.
TEST_F(DiskFull, ASmallDisk) {
  SmallDisk disk(path("small-disk"));
  constexpr std::uintmax_t kMegabyte = 1 << 20;
  if (!disk.mount(64 * kMegabyte)) GTEST_SKIP() << "only root mounts a small disk";
  const fs::path run = path("small-disk/small");
  int num_with_checkpoint = 0, num_without = 0;
  for (const std::uintmax_t room : {kMegabyte / 5, kMegabyte * 3 / 5, kMegabyte, kMegabyte * 3 / 2}) {
    SCOPED_TRACE(fmt::format("{} bytes", room));
    fs::remove_all(run);
    ASSERT_TRUE(disk.resize(room));
    const Words words = kLong + Words{"--run.out", "small-disk", "--checkpoint.every", "10", "--checkpoint.keep", "99"};
    expect_message_of(train(2, words), "small-disk/small/");
    std::vector<std::string> warnings;
    const auto newest = io::newest_valid_checkpoint(run, warnings);
    EXPECT_TRUE(warnings.empty()) << warnings[0];
    ++(newest ? num_with_checkpoint : num_without);

    ASSERT_TRUE(disk.resize(64 * kMegabyte));
    expect_it_goes_on({"--run.out", "small-disk"});
    EXPECT_EQ(logged_steps(run / "results.h5"), steps_up_to(kSteps));
  }
  EXPECT_GE(num_with_checkpoint, 1) << "the sizes above no longer fit what they are for";
  EXPECT_GE(num_without, 1);
}

TEST_F(DiskFull, NoRoomForResults) {
  SmallDisk disk(path("small-disk"));
  if (!disk.mount(4096)) GTEST_SKIP() << "only root mounts a small disk";
  expect_message_of(train(2, kLong + Words{"--run.out", "small-disk"}), "results.h5");
}

}  // namespace
}  // namespace switchyard::test
