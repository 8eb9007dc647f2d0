// A run that is saved and goes on in another layout ends where the run that was never interrupted ends.
#include <gtest/gtest.h>

#include "train/checkpoint_arrays.hpp"
#include "train/shared_folder.hpp"
#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

// The first `ranks` ranks call body(communicator over them).
template <typename Body>
void on_first_ranks(Index ranks, const Body& body) {
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world_rank() < ranks ? 0 : MPI_UNDEFINED, 0, &comm);
  if (comm != MPI_COMM_NULL) {
    body(comm);
    MPI_Comm_free(&comm);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

SmallRun run_on(MPI_Comm comm, Config config, Index experts) {
  config.parallel.experts = experts;
  return {config, make_mpi_communicator(comm, kTimeout)};
}

// Saves after 1 step in one layout, resumes in each, and compares after 3 steps: the second one crosses into epoch 2.
void compare_resumed_runs(const Config& config) {
  SmallRun uninterrupted = run_alone(config);
  const std::vector<StepMetrics> expected = uninterrupted.train(3);
  const SharedFolder folder;
  for (Index writers = 1; writers <= world_size(); writers *= 2) {
    for (Index writer_experts : expert_parallel_sizes(config, writers)) {
      const auto path = folder / (std::to_string(writers) + "-" + std::to_string(writer_experts) + ".h5");
      on_first_ranks(writers, [&](MPI_Comm comm) {
        SmallRun run = run_on(comm, config, writer_experts);
        run.train(1);
        run->save(*make_mpi_communicator(comm, kTimeout), path);
      });
      for (Index readers = 1; readers <= world_size(); readers *= 2) {
        for (Index reader_experts : expert_parallel_sizes(config, readers)) {
          SCOPED_TRACE(std::to_string(writers) + " ranks, P " + std::to_string(writer_experts) + " -> " +
                       std::to_string(readers) + " ranks, P " + std::to_string(reader_experts));
          on_first_ranks(readers, [&](MPI_Comm comm) {
            SmallRun run = run_on(comm, config, reader_experts);
            const io::CheckpointInfo info = run->load(*make_mpi_communicator(comm, kTimeout), path);
            EXPECT_EQ(info.step, 1);
            EXPECT_EQ(info.digest, run->digest());
            EXPECT_EQ(run->step(), 1);
            EXPECT_EQ(run.train(2).back().loss, expected.back().loss);
            EXPECT_EQ(run->digest(), uninterrupted->digest());
          });
        }
      }
    }
  }
}

TEST(Resume, MixtureInEveryLayout) { compare_resumed_runs(config_of(kind_named("switch"))); }

// Saved with the experts over as many ranks as there are, resumed by one rank alone and by all with all experts each.
TEST(Resume, EveryRouter) {
  const SharedFolder folder;
  for (const Kind& kind : all_kinds()) {
    SCOPED_TRACE(kind.name);
    const Config config = config_of(kind);
    SmallRun uninterrupted = run_alone(config);
    uninterrupted.train(3);
    const auto path = folder / (kind.name + ".h5");
    on_first_ranks(world_size(), [&](MPI_Comm comm) {
      SmallRun run = run_on(comm, config, expert_parallel_sizes(config, world_size()).back());
      run.train(1);
      run->save(*make_mpi_communicator(comm, kTimeout), path);
    });
    for (Index readers : {Index{1}, Index{world_size()}}) {
      on_first_ranks(readers, [&](MPI_Comm comm) {
        SmallRun run = run_on(comm, config, 1);
        run->load(*make_mpi_communicator(comm, kTimeout), path);
        run.train(2);
        EXPECT_EQ(run->digest(), uninterrupted->digest()) << "on " << readers << " ranks";
      });
    }
  }
}

TEST(Resume, DenseModelWithSgd) {
  Config config = config_of(kind_named("dense"));
  config.train.optimizer = "sgd";
  compare_resumed_runs(config);
}

// Optimiser state too, down to the signs of zeros: an expert that no token of a batch visits has gradients of zero.
TEST(Resume, EveryLayoutSavesTheSameArrays) {
  const SharedFolder folder;
  for (const char* optimizer : {"adam", "sgd"}) {
    Config config = config_of(kind_named("random"));
    config.train.optimizer = optimizer;
    config.train.weight_decay = 0;
    if (world_rank() == 0) {
      SmallRun alone = run_alone(config);
      alone.train(2);
      alone->save(*make_local_communicator(), folder / "alone.h5");
    }
    MPI_Barrier(MPI_COMM_WORLD);
    for (Index experts : expert_parallel_sizes(config, world_size())) {
      config.parallel.experts = experts;
      SmallRun run = run_on_all_ranks(config);
      run.train(2);
      run->save(*world_communicator(), folder / "together.h5");
      const CheckpointArrays expected(folder / "alone.h5"), found(folder / "together.h5");
      EXPECT_EQ(found.info().digest, expected.info().digest);
      const std::size_t copies = std::string(optimizer) == "adam" ? 3 : 2;  // parameters, and moments or velocity
      ASSERT_EQ(found.all().size(), copies * static_cast<std::size_t>(run->table().size()));
      for (std::size_t i = 0; i < found.all().size(); ++i)
        EXPECT_EQ(bits_of(found.all()[i]), bits_of(expected.all()[i])) << "array " << i << ", P " << experts;
      MPI_Barrier(MPI_COMM_WORLD);
    }
  }
}

TEST(Resume, ParametersAloneEvaluateAlike) {
  const SharedFolder folder;
  const Config config = config_of(kind_named("switch"));
  SmallRun run = run_on_all_ranks(config), whole = run_on_all_ranks(config), parameters = run_on_all_ranks(config);
  run.train(2);
  run->save(*world_communicator(), folder / "checkpoint.h5");
  whole->load(*world_communicator(), folder / "checkpoint.h5");
  parameters->network().load(*world_communicator(), folder / "checkpoint.h5");
  EXPECT_EQ(parameters->digest(), run->digest());
  EXPECT_EQ(parameters->evaluate().loss, run->evaluate().loss);
  run.train(1);
  whole.train(1);
  EXPECT_EQ(whole->digest(), run->digest());
}

TEST(Resume, AnotherModelsCheckpointIsRefused) {
  const SharedFolder folder;
  Config config = config_of(kind_named("switch"));
  SmallRun run = run_on_all_ranks(config);
  run->save(*world_communicator(), folder / "checkpoint.h5");
  config.ffn.hidden += 1;
  SmallRun other = run_on_all_ranks(config);
  const std::string digest = other->digest();
  const std::string message = message_of([&] { other->load(*world_communicator(), folder / "checkpoint.h5"); });
  EXPECT_TRUE(contains(message, "blocks.0.experts")) << message;
  EXPECT_EQ(other->digest(), digest);
}

}  // namespace
}  // namespace switchyard::testing
