// What was saved comes back, whoever saved which part and whoever loads it.
#include "io/checkpoint.hpp"

#include <chrono>
#include <thread>

#include "support.hpp"

namespace switchyard::io::testing {
namespace {

std::vector<int> rank_counts() {
  std::vector<int> counts;
  for (int n = 1; n <= size_of(MPI_COMM_WORLD); n *= 2) counts.push_back(n);
  return counts;
}

TEST(Checkpoint, AnyNumberOfRanksLoadsWhatAnyNumberSaved) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  for (const int num_writers : rank_counts()) {
    const auto path = folder / ("by-" + std::to_string(num_writers) + ".h5");
    const FirstRanks writers(num_writers);
    if (writers.has_me())
      save_checkpoint(writers.comm(), path, some_info(), arrays_of_rank(writers.comm(), true).slices);
    MPI_Barrier(MPI_COMM_WORLD);
    for (const int num_readers : rank_counts()) {
      const FirstRanks readers(num_readers);
      if (!readers.has_me()) continue;
      Arrays arrays = arrays_of_rank(readers.comm(), false);
      const CheckpointInfo info = load_checkpoint(readers.comm(), path, arrays.slices);
      EXPECT_EQ(arrays.num_wrong(), 0) << num_writers << " wrote, " << num_readers << " read";
      EXPECT_EQ(info.step, 1234);
      EXPECT_EQ(info.config, some_info().config);
      EXPECT_EQ(info.digest, some_info().digest);
      EXPECT_EQ(info.attributes, some_info().attributes);
    }
  }
}

TEST(Checkpoint, TheFileIsTheSameWhateverTheRanksAndTheTime) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  for (const int num_writers : rank_counts()) {
    const FirstRanks writers(num_writers);
    if (writers.has_me())
      save_checkpoint(writers.comm(), folder / std::to_string(num_writers), some_info(),
                      arrays_of_rank(writers.comm(), true).slices);
    MPI_Barrier(MPI_COMM_WORLD);
    EXPECT_TRUE(bytes_of(folder / std::to_string(num_writers)) == bytes_of(folder / "1")) << num_writers;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5 knows seconds
  save_checkpoint(MPI_COMM_WORLD, folder / "later", some_info(), arrays_of_rank(MPI_COMM_WORLD, true).slices);
  EXPECT_TRUE(bytes_of(folder / "later") == bytes_of(folder / "1"));
}

TEST(Checkpoint, AnySliceLoadsOnItsOwn) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  save_checkpoint(world, folder / "a.h5", some_info(), arrays_of_rank(world, true).slices);
  const Index first = 3 - rank_in(world) % 4;
  for (const Index count : {Index{0}, Index{1}, Index{5}}) {
    Arrays arrays(first, count, false);
    load_checkpoint(world, folder / "a.h5", arrays.slices);
    EXPECT_EQ(arrays.num_wrong(), 0) << first << " " << count;
  }
}

TEST(Checkpoint, ReplicasThatDoNotWriteAreIgnored) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  // Every rank holds all experts; the last one writes them, the others hold other values.
  const bool last = rank_in(world) == size_of(world) - 1;
  Arrays arrays(0, kExperts, last);
  for (ArraySlice& slice : arrays.slices) slice.writes = last;
  save_checkpoint(world, folder / "a.h5", some_info(), arrays.slices);
  Arrays loaded(0, kExperts, false);
  load_checkpoint(world, folder / "a.h5", loaded.slices);
  EXPECT_EQ(loaded.num_wrong(), 0);
}

TEST(Checkpoint, ATopLevelGroupMayBeLeftOut) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  save_checkpoint(world, folder / "a.h5", some_info(), arrays_of_rank(world, true).slices);
  Arrays arrays = arrays_of_rank(world, false);
  arrays.slices.pop_back();
  arrays.storage.pop_back();
  load_checkpoint(world, folder / "a.h5", arrays.slices);
  EXPECT_EQ(arrays.num_wrong(), 0);
}

TEST(Checkpoint, ALongConfigurationIsKept) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  CheckpointInfo info = some_info();
  info.config = std::string(200'000, 'x') + "end";
  save_checkpoint(MPI_COMM_WORLD, folder / "a.h5", info, arrays_of_rank(MPI_COMM_WORLD, true).slices);
  Arrays arrays = arrays_of_rank(MPI_COMM_WORLD, false);
  EXPECT_EQ(load_checkpoint(MPI_COMM_WORLD, folder / "a.h5", arrays.slices).config, info.config);
}

TEST(Checkpoint, ManyArraysAndAttributesAreKept) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  CheckpointInfo info = some_info();
  for (int i = 0; i < 100; ++i) info.attributes["attribute " + std::to_string(i)] = std::string(500, 'a');
  std::vector<float> value(1, 7.0f);
  std::vector<ArraySlice> slices;
  for (int i = 0; i < 300; ++i)
    slices.push_back({"parameters/" + std::to_string(i), {1}, false, 0, 1, value.data(), rank_in(MPI_COMM_WORLD) == 0});
  save_checkpoint(MPI_COMM_WORLD, folder / "a.h5", info, slices);
  value[0] = 0;
  EXPECT_EQ(load_checkpoint(MPI_COMM_WORLD, folder / "a.h5", slices).attributes, info.attributes);
  EXPECT_EQ(value[0], 7.0f);
}

TEST(Checkpoint, AnArrayThatIsNotInTheFileIsNamedWithItsShape) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  save_checkpoint(world, folder / "a.h5", some_info(), arrays_of_rank(world, true).slices);
  Arrays other = arrays_of_rank(world, false);
  other.slices[1].name = "/parameters/blocks.9/experts";
  const std::string message = message_of([&] { load_checkpoint(world, folder / "a.h5", other.slices); });
  EXPECT_TRUE(contains(message, "/parameters/blocks.9/experts of shape (8, 5, 3)")) << message;
  EXPECT_TRUE(contains(message, (folder / "a.h5").string())) << message;
}

TEST(Checkpoint, AnotherShapeIsNamedWithBothShapes) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  save_checkpoint(world, folder / "a.h5", some_info(), arrays_of_rank(world, true).slices);
  Arrays other = arrays_of_rank(world, false, 6);
  const std::string message = message_of([&] { load_checkpoint(world, folder / "a.h5", other.slices); });
  EXPECT_TRUE(contains(message, "(8, 5, 3)") && contains(message, "(8, 6, 3)")) << message;
}

TEST(Checkpoint, AnArrayOfTheFileThatNobodyWantsIsNamed) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  save_checkpoint(world, folder / "a.h5", some_info(), arrays_of_rank(world, true).slices);
  Arrays fewer = arrays_of_rank(world, false);
  fewer.slices.erase(fewer.slices.begin());
  const std::string message = message_of([&] { load_checkpoint(world, folder / "a.h5", fewer.slices); });
  EXPECT_TRUE(contains(message, "parameters/blocks.0/weight")) << message;
}

TEST(Checkpoint, AnExpertThatNobodyOrEverybodyWritesIsAnError) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  Arrays arrays = arrays_of_rank(world, true);
  arrays.slices[1].writes = false;
  const std::string nobody = message_of([&] { save_checkpoint(world, folder / "a.h5", some_info(), arrays.slices); });
  EXPECT_TRUE(contains(nobody, "expert 0: 0 ranks")) << nobody;
  if (size_of(world) > 1) {
    Arrays all(0, kExperts, true);
    const std::string every = message_of([&] { save_checkpoint(world, folder / "a.h5", some_info(), all.slices); });
    EXPECT_TRUE(contains(every, std::to_string(size_of(world)) + " ranks")) << every;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "a.h5"));
}

TEST(Checkpoint, RanksThatListOtherArraysAreAnErrorNotAHang) {
  const MPI_Comm world = MPI_COMM_WORLD;
  if (size_of(world) == 1) GTEST_SKIP() << "one rank cannot disagree";
  const TemporaryFolder folder(world);
  Arrays arrays = arrays_of_rank(world, true);
  if (rank_in(world) == 1) arrays.slices.pop_back();
  EXPECT_TRUE(contains(message_of([&] { save_checkpoint(world, folder / "a.h5", some_info(), arrays.slices); }),
                       "ranks disagree"));
}

TEST(Checkpoint, AMissingFolderIsTheSameErrorOnEveryRank) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const auto path = folder / "none" / "a.h5";
  const std::string message = message_of(
      [&] { save_checkpoint(MPI_COMM_WORLD, path, some_info(), arrays_of_rank(MPI_COMM_WORLD, true).slices); });
  EXPECT_TRUE(contains(message, path.string()) && contains(message, "No such file")) << message;
  Arrays arrays = arrays_of_rank(MPI_COMM_WORLD, false);
  EXPECT_TRUE(contains(message_of([&] { load_checkpoint(MPI_COMM_WORLD, path, arrays.slices); }), "no such file"));
}

TEST(CheckpointFolder, TheNewestThatVerifiesIsFoundAndDamagedOnesArePassedOverWithAWarning) {
  const TemporaryFolder folder(MPI_COMM_WORLD);
  const MPI_Comm world = MPI_COMM_WORLD;
  const auto ranks = make_mpi_communicator(world, kTimeout);
  for (const Index step : {9, 20, 100'000'000})
    save_checkpoint(world, checkpoint_path(folder.path(), step), some_info(), arrays_of_rank(world, true).slices);
  if (rank_in(world) == 0) {
    std::string bytes = bytes_of(checkpoint_path(folder.path(), 100'000'000));
    write_bytes(checkpoint_path(folder.path(), 100'000'000), bytes.substr(0, bytes.size() / 2));
    write_bytes(folder / "checkpoint-99999999.h5.tmp", "half a save");
    write_bytes(folder / "checkpoint-final.h5", "a user's own");
  }
  std::vector<std::string> warnings;
  MPI_Barrier(world);
  const auto found = newest_valid_checkpoint(folder.path(), warnings);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(*found, folder / "checkpoint-00000020.h5");
  EXPECT_EQ(warnings.size(), 1u);
  for (const std::string& warning : warnings) EXPECT_TRUE(contains(warning, "checkpoint-100000000.h5")) << warning;
  EXPECT_FALSE(newest_valid_checkpoint(folder / "none", warnings).has_value());
  MPI_Barrier(world);
}

TEST(CheckpointFolder, OneThatCannotBeListedIsNotEmpty) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "x");
  std::vector<std::string> warnings;
  for (const auto& look : {std::function<void()>([&] { list_checkpoints(folder / "file"); }),
                           std::function<void()>([&] { newest_valid_checkpoint(folder / "file", warnings); })}) {
    const std::string message = message_of(look);
    EXPECT_TRUE(contains(message, (folder / "file").string()) && contains(message, "cannot list")) << message;
  }
}

TEST(CheckpointFolder, OldCheckpointsAndStaleTemporaryFilesGoOthersStay) {
  if (rank_in(MPI_COMM_WORLD) != 0) return;
  const TemporaryFolder folder;
  for (const char* name : {"checkpoint-00000001.h5", "checkpoint-00000010.h5", "checkpoint-00000002.h5",
                           "checkpoint-00000011.h5.tmp", "checkpoint-best.h5", "results.h5", "notes.tmp"})
    write_bytes(folder / name, "x");
  const auto left = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  };
  remove_old_checkpoints(folder.path(), 10, 2);
  EXPECT_EQ(left(), (std::vector<std::string>{"checkpoint-00000002.h5", "checkpoint-00000010.h5", "checkpoint-best.h5",
                                              "notes.tmp", "results.h5"}));
  remove_old_checkpoints(folder.path(), 10, 0);
  EXPECT_TRUE(std::filesystem::exists(folder / "checkpoint-00000010.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "checkpoint-00000002.h5"));
}

TEST(CheckpointFolder, TheOneJustSavedStaysBelowLaterOnesWhichGo) {
  if (rank_in(MPI_COMM_WORLD) != 0) return;
  const TemporaryFolder folder;
  for (const Index step : {1, 2, 3, 8, 9}) write_bytes(checkpoint_path(folder.path(), step), "x");
  remove_old_checkpoints(folder.path(), 3, 2);
  EXPECT_EQ(list_checkpoints(folder.path()),
            (std::vector{checkpoint_path(folder.path(), 2), checkpoint_path(folder.path(), 3)}));
}

}  // namespace
}  // namespace switchyard::io::testing
