// A file that is not what was written is refused with its own clear reason, on every rank; never a crash, never wrong
// numbers.
#include <algorithm>
#include <cstring>

#include <hdf5.h>

#include "io/checkpoint.hpp"
#include "io/schema.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

const MPI_Comm kWorld = MPI_COMM_WORLD;

class CheckpointDamage : public ::testing::Test {
 protected:
  CheckpointDamage() : folder_(kWorld), path_(folder_ / "checkpoint-00000001.h5") {
    save_checkpoint(kWorld, path_, some_info(), arrays_of_rank(kWorld, true).slices);
    bytes_ = bytes_of(path_);
    MPI_Barrier(kWorld);
  }

  // Puts `bytes` in the file's place and says how loading it fails; empty: it does not fail.
  std::string load(const std::string& bytes) {
    if (rank_in(kWorld) == 0) write_bytes(path_, bytes);
    MPI_Barrier(kWorld);
    Arrays arrays = arrays_of_rank(kWorld, false);
    const std::string message = message_of([&] {
      const CheckpointInfo info = load_checkpoint(kWorld, path_, arrays.slices);
      EXPECT_EQ(arrays.num_wrong(), 0);
      EXPECT_EQ(info.step, 1234);
      EXPECT_EQ(info.config, some_info().config);
      EXPECT_EQ(info.digest, some_info().digest);
      EXPECT_EQ(info.attributes, some_info().attributes);
    });
    MPI_Barrier(kWorld);
    return message;
  }

  // Rewrites one attribute of the root through HDF5 itself, as a newer or foreign program would.
  std::string with_attribute(const char* name, hid_t type, const void* value) {
    if (rank_in(kWorld) == 0) {
      const hid_t file = H5Fopen(path_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
      const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
      EXPECT_GE(H5Awrite(attribute, type, value), 0);
      H5Aclose(attribute);
      H5Fclose(file);
    }
    MPI_Barrier(kWorld);
    return bytes_of(path_);
  }

  TemporaryFolder folder_;
  std::filesystem::path path_;
  std::string bytes_;
};

TEST_F(CheckpointDamage, AWholeFileVerifies) {
  const CheckpointSummary summary = describe_checkpoint(path_);
  EXPECT_TRUE(summary.verifies) << summary.problem;
  EXPECT_EQ(summary.schema_version, schema::kCheckpointVersion);
  EXPECT_EQ(summary.info.step, 1234);
  ASSERT_EQ(summary.arrays.size(), 3u);
  EXPECT_EQ(summary.arrays[2].name, "parameters/blocks.1/experts");
  EXPECT_EQ(summary.arrays[2].shape, (std::vector<Index>{kExperts, 5, 3}));
  EXPECT_TRUE(summary.arrays[2].per_expert && summary.arrays[2].verified);
}

TEST_F(CheckpointDamage, ATruncatedFileIsRefused) {
  for (const double part : {0.0, 0.01, 0.3, 0.9, 0.9999}) {
    const std::string message = load(bytes_.substr(0, static_cast<std::size_t>(part * double(bytes_.size()))));
    EXPECT_TRUE(contains(message, path_.string())) << part << ": " << message;
    EXPECT_FALSE(describe_checkpoint(path_).verifies);
  }
  EXPECT_TRUE(contains(load(bytes_.substr(0, bytes_.size() / 2)), "cut short"));
}

// Every bit of content is under a checksum: a file with one bit flipped is either refused, or the bit was padding and
// everything still reads as it was written. (load() checks that.)
TEST_F(CheckpointDamage, AFlippedBitAnywhereIsRefusedOrChangesNothing) {
  std::size_t num_refused = 0, num_tried = 0;
  const std::size_t num_flips = size_of(kWorld) == 1 ? 1000 : 100;
  const std::size_t stride = std::max<std::size_t>(1, bytes_.size() / num_flips);
  for (std::size_t at = 0; at < bytes_.size(); at += stride, ++num_tried) {
    std::string flipped = bytes_;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    const bool loads = load(flipped).empty();
    num_refused += !loads;
    if (rank_in(kWorld) == 0) {
      EXPECT_EQ(describe_checkpoint(path_).verifies, loads) << "byte " << at;
    }
  }
  EXPECT_GT(num_refused, num_tried / 3);
}

TEST_F(CheckpointDamage, TheHeaderAloneIsReadAndVerified) {
  const float value = Arrays::value(1, 7 * 15 + 4);
  std::string damaged_array = bytes_, damaged_header = bytes_;
  damaged_array[bytes_.find(std::string(reinterpret_cast<const char*>(&value), sizeof value))] ^= 1;
  load(damaged_array);
  EXPECT_EQ(read_checkpoint_info(path_).step, some_info().step);
  EXPECT_EQ(read_checkpoint_info(path_).config, some_info().config);
  MPI_Barrier(kWorld);
  damaged_header[bytes_.find(some_info().config)] ^= 1;
  load(damaged_header);
  EXPECT_TRUE(contains(message_of([&] { read_checkpoint_info(path_); }), "damaged"));
}

TEST_F(CheckpointDamage, AFlippedBitInAnArrayNamesTheArrayAndExpert) {
  const float value = Arrays::value(1, 7 * 15 + 4);  // expert 7
  const auto at = bytes_.find(std::string(reinterpret_cast<const char*>(&value), sizeof value));
  ASSERT_NE(at, std::string::npos);
  std::string flipped = bytes_;
  flipped[at] ^= 1;
  const std::string message = load(flipped);
  EXPECT_TRUE(contains(message, "parameters/blocks.1/experts, expert 7,")) << message;
  if (size_of(kWorld) > 1) {
    EXPECT_TRUE(contains(message, "rank 1:")) << message;
  }
  const CheckpointSummary summary = describe_checkpoint(path_);
  EXPECT_FALSE(summary.verifies);
  EXPECT_FALSE(summary.arrays[2].verified);
  EXPECT_TRUE(summary.arrays[0].verified && summary.arrays[1].verified);
}

TEST_F(CheckpointDamage, AChangedRootAttributeIsRefused) {
  const std::int64_t step = 1235;
  EXPECT_TRUE(contains(load(with_attribute(schema::kStep, H5T_NATIVE_INT64, &step)), "do not match their checksum"));
}

TEST_F(CheckpointDamage, ANewerSchemaIsNamed) {
  const std::int64_t version = schema::kCheckpointVersion + 1;
  const std::string message = load(with_attribute(schema::kSchemaVersion, H5T_NATIVE_INT64, &version));
  EXPECT_TRUE(contains(message, "newer program (schema version 2")) << message;
}

TEST_F(CheckpointDamage, AnotherKindOfFileIsNamed) {
  EXPECT_TRUE(contains(load("no HDF5 at all, but long enough to be looked at closely"), "not an HDF5 file"));
  EXPECT_TRUE(contains(load(""), "not an HDF5 file"));
  if (rank_in(kWorld) == 0) H5Fclose(H5Fcreate((folder_ / "other").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  MPI_Barrier(kWorld);
  EXPECT_TRUE(contains(load(bytes_of(folder_ / "other")), "no checkpoint of this program"));
  Arrays arrays = arrays_of_rank(kWorld, false);
  EXPECT_TRUE(contains(message_of([&] { load_checkpoint(kWorld, folder_.path(), arrays.slices); }),
                       "is a folder: name a file in it"));
}

}  // namespace
}  // namespace switchyard::io::testing
