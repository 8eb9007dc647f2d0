// What train, eval and bench set up alike: ranks, threads, data and model from a configuration.
#pragma once

#include <memory>

#include "app/world.hpp"
#include "comm/mesh.hpp"
#include "config/config.hpp"
#include "core/context.hpp"
#include "data/dataset.hpp"

namespace switchyard {

DataOptions data_options(const Config& config);
// Known from data.kind alone, or else from the files.
ImageShape shape_of_data(const Config& config);
std::string describe_model(const Config& config);
// Of what the bits of a result may depend on.
std::string library_versions();

// Threads, the kernels' context, and the mesh. Collective.
struct Session {
  Session(const Config& config, World& world);

  std::unique_ptr<ThreadPool> threads;
  Context context;
  Mesh mesh;
};

}  // namespace switchyard
