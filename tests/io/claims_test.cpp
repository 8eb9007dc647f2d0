// Files whose shapes claim more than they hold cost neither memory nor time: they are refused, or read as far as they
// go.
#include <hdf5.h>

#include <functional>

#include "io/results.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

using Extent = std::vector<hsize_t>;

class Claims : public ::testing::Test {
 protected:
  // Changes a file as a program of somebody else's may.
  void edit(const std::function<void(hid_t)>& change) {
    const hid_t file = H5Fopen(path_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    ASSERT_GE(file, 0);
    change(file);
    H5Fclose(file);
  }
  static void write(hid_t file, const char* name, hid_t type, const Extent& extent, hid_t creation = H5P_DEFAULT) {
    const hid_t space = extent.empty() ? H5Screate(H5S_SCALAR)
                                       : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
    const hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    const hid_t dataset = H5Dcreate2(file, name, type, space, links, creation, H5P_DEFAULT);
    ASSERT_GE(dataset, 0);
    const hid_t scalar = H5Screate(H5S_SCALAR);
    const hid_t sum = H5Acreate2(dataset, "checksum", H5T_STD_U64LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Aclose(sum);
    for (const hid_t id : {scalar, space}) H5Sclose(id);
    H5Pclose(links);
    H5Dclose(dataset);
  }
  void save() {
    const Arrays arrays(0, kExperts, true);
    save_checkpoint(MPI_COMM_WORLD, path_, some_info(), arrays.slices);
  }
  void expect_damaged(const std::string& part) {
    const CheckpointSummary summary = describe_checkpoint(path_);
    EXPECT_FALSE(summary.verifies);
    EXPECT_TRUE(contains(summary.problem, path_.string() + ": is damaged: " + part)) << summary.problem;
    EXPECT_EQ(message_of([&] { read_checkpoint_info(path_); }), summary.problem);
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "file.h5";
};

TEST_F(Claims, ArraysOfACheckpointHoldNoLessThanTheirShapeClaims) {
  for (const Extent& extent :
       std::vector<Extent>{{0, 3}, {4, 0}, {274877906944}, {1, 8589934592}, {4, 4294967296, 4294967296}}) {
    save();
    edit([&](hid_t file) { write(file, "x/evil", H5T_IEEE_F32LE, extent); });
    expect_damaged("array x/evil claims shape (" + std::to_string(extent[0]));
  }
}

TEST_F(Claims, AnArrayInAnotherFileIsNoneOfACheckpoint) {
  save();
  write_bytes(folder_ / "secret", std::string(64, 's'));
  edit([&](hid_t file) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(creation, (folder_ / "secret").c_str(), 0, 64);
    write(file, "x/evil", H5T_IEEE_F32LE, {16}, creation);
    H5Pclose(creation);
  });
  expect_damaged("array x/evil claims shape (16), but the file holds 0 bytes of it");
}

TEST_F(Claims, AConfigurationIsNoLongerThanTheFile) {
  save();
  edit([&](hid_t file) {
    H5Ldelete(file, "config", H5P_DEFAULT);
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, 4000000000);
    write(file, "config", type, {});
    H5Tclose(type);
  });
  expect_damaged("cannot read config");
}

TEST_F(Claims, ResultsHaveTheRowsThatTheyHold) {
  {
    ResultsWriter writer = ResultsWriter::create(path_, {{"config", ""}}, {2, 3, 0, 0});
    for (Index step = 1; step <= 10; ++step) writer.append(StepRow{.step = step});
  }
  edit([&](hid_t file) {
    const hsize_t rows = 1000000000;
    const auto extend = [](hid_t group, const char* name, const H5L_info_t*, void* extent) -> herr_t {
      const hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
      H5Dset_extent(dataset, static_cast<const hsize_t*>(extent));
      H5Dclose(dataset);
      return 0;
    };
    H5Literate_by_name(file, "steps", H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, extend, const_cast<hsize_t*>(&rows),
                       H5P_DEFAULT);
  });
  const ResultsSummary summary = describe_results(path_);
  EXPECT_TRUE(summary.readable) << summary.problem;
  EXPECT_EQ(summary.num_steps, 10);
}

TEST_F(Claims, ARowOfResultsFitsIntoAChunk) {
  ResultsWriter::create(path_, {{"config", ""}}, {2, 3, 0, 0}).close();
  edit([&](hid_t file) {
    H5Ldelete(file, "routing/load", H5P_DEFAULT);
    write(file, "routing/load", H5T_IEEE_F32LE, {0, 1000000000, 1000000000});
  });
  const ResultsSummary summary = describe_results(path_);
  EXPECT_FALSE(summary.readable);
  EXPECT_TRUE(contains(summary.problem, "is damaged: routing/load claims rows of 1000000000 x 1000000000"))
      << summary.problem;
}

}  // namespace
}  // namespace switchyard::io::testing
