// A rank that does not come to a save or a load: the others do not wait for ever, and leave no half file.
#include <functional>

#include "comm/mpi.hpp"
#include "core/agreement.hpp"
#include "io/checkpoint.hpp"
#include "support.hpp"

namespace switchyard::io::testing {
namespace {

const MPI_Comm kWorld = MPI_COMM_WORLD;

// The last rank stays away from `work`; the others name it, in an error that they did not agree on.
void expect_the_last_rank_is_missed(const std::function<void(Ranks&)>& work) {
  const auto ranks = make_mpi_communicator(kWorld, 1);
  const int last = ranks->size() - 1;
  if (ranks->rank() != last) {
    try {
      work(*ranks);
      ADD_FAILURE() << "nothing was missed";
    } catch (const AgreedError& error) {
      ADD_FAILURE() << "not all ranks can know of this: " << error.what();
    } catch (const Error& error) {
      EXPECT_TRUE(contains(error.what(), "no answer from rank " + std::to_string(last) + ".")) << error.what();
    }
  }
  MPI_Barrier(kWorld);
}

TEST(MissingRank, EndsASave) {
  const TemporaryFolder folder(kWorld);
  const Arrays arrays = arrays_of_rank(kWorld, true);
  expect_the_last_rank_is_missed(
      [&](Ranks& ranks) { save_checkpoint(ranks, folder / "checkpoint-00000001.h5", some_info(), arrays.slices); });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(MissingRank, EndsALoad) {
  const TemporaryFolder folder(kWorld);
  Arrays arrays = arrays_of_rank(kWorld, true);
  save_checkpoint(kWorld, folder / "checkpoint-00000001.h5", some_info(), arrays.slices);
  expect_the_last_rank_is_missed(
      [&](Ranks& ranks) { load_checkpoint(ranks, folder / "checkpoint-00000001.h5", arrays.slices); });
}

}  // namespace
}  // namespace switchyard::io::testing
