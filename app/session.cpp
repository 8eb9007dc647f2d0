#include "app/session.hpp"

#include <hdf5.h>
#include <mpi.h>
#include <sched.h>

#include "app/text.hpp"
#include "comm/nccl.hpp"
#include "kernels/api/version.hpp"
#include "network/model_options.hpp"

namespace switchyard {

DataOptions data_options(const Config& config) {
  DataOptions options;
  options.kind = config.data.kind;
  options.path = config.data.path;
  options.limit = config.data.limit;
  options.synthetic_samples = config.data.synthetic_samples;
  options.synthetic_size = config.data.synthetic_size;
  options.synthetic_channels = config.data.synthetic_channels;
  options.synthetic_classes = config.data.synthetic_classes;
  options.clusters_setting = config.data.clusters_setting;
  options.seed = config.data.synthetic_seed;
  options.validation = config.data.validation;
  options.validation_seed = config.data.validation_seed;
  return options;
}

ImageShape shape_of_data(const Config& config) {
  if (const auto known = known_shape(data_options(config))) return *known;
  const Dataset data = load_dataset(data_options(config));
  return {data.height, data.width, data.channels, data.classes};
}

std::string describe_model(const Config& config) {
  std::string passes;
  if (config.ffn.consistency > 0)
    passes = fmt::format(", two passes with consistency {} ({})", config.ffn.consistency, config.ffn.consistency_kind);
  std::string text = config.model.kind;
  if (config.model.kind == "vit")
    text += fmt::format(", {} of width {}, {}, patch {}", plural(config.model.layers, "layer"), config.model.width,
                        plural(config.model.heads, "head"), config.model.patch);
  if (config.ffn.kind == "fff")
    text += fmt::format("; ffn fff, {} leaves of {}", experts_or_leaves(config), config.ffn.leaf);
  else
    text += fmt::format("; ffn {} {}", config.ffn.kind, config.ffn.hidden);
  if (config.ffn.kind != "fff" && config.ffn.activation != "gelu") text += " " + config.ffn.activation;
  text += ", " + config.compute.dtype + (config.compute.tf32 ? " by TF32" : "");
  if (config.ffn.tree == "hard" && config.ffn.kind == "fff") text += ", hard tree";
  if (config.ffn.kind != "moe") return text + passes;
  text += ", " + plural(config.ffn.experts, "expert");
  if (config.ffn.shared > 0) text += fmt::format(" and {} shared", config.ffn.shared);
  if (config.ffn.every > 1 && config.model.kind == "vit") text += fmt::format(" in one block of {}", config.ffn.every);
  text += fmt::format(", router {}", config.ffn.router);
  if (config.ffn.router == "random") {
    text += config.ffn.granularity == "balanced" ? ", balanced" : " per " + config.ffn.granularity;
    if (config.ffn.draw == "layer") text += ", each layer its own";
  }
  if (config.ffn.router == "hash") text += " of " + config.ffn.hash;
  if (experts_per_token(router_options(config.ffn)) > 1) text += fmt::format(", top {}", config.ffn.top_k);
  return text + fmt::format(", inference {}", config.ffn.inference) + passes;
}

std::string library_versions(Device device) {
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(mpi, &length);
  const std::string mpi_text(mpi, static_cast<std::size_t>(length));
  std::string text = fmt::format("{}; HDF5 {}.{}.{}; {}; GCC {}", kernels::library_version(), H5_VERS_MAJOR,
                                 H5_VERS_MINOR, H5_VERS_RELEASE, mpi_text.substr(0, mpi_text.find(',')), __VERSION__);
  if (device == Device::kCpu) return text;
  text += "; " + kernels::device_libraries(device);
  return has_nccl() ? text + "; " + nccl_version() : text;
}

namespace {

// Open MPI binds a rank to one core unless told otherwise, and then its threads share it.
void warn_of_too_few_cores(const Mesh& mesh, Index threads) {
  cpu_set_t cores;
  if (mesh.world().rank() != 0 || sched_getaffinity(0, sizeof cores, &cores) != 0) return;
  if (CPU_COUNT(&cores) < threads)
    fmt::print(
        stderr,
        "switchyard: warning: parallel.threads = {}, but a rank may use only {}: start mpirun with --bind-to none "
        "or --map-by slot:PE={}\n",
        threads, plural(CPU_COUNT(&cores), "core"), threads);
}

}  // namespace

Session::Session(const Config& config, World& world)
    : threads(world.together([&] { return std::make_unique<ThreadPool>(static_cast<int>(config.parallel.threads)); })),
      device(config, world),
      context{device.device(), threads.get(), device.stream()},
      mesh(device.communicator(config, world), config.parallel.experts) {
  warn_of_too_few_cores(mesh, config.parallel.threads);
  if (device.device() == Device::kCpu && config.compute.dtype == "bf16" && !kernels::has_bf16_instructions() &&
      world.speaks())
    fmt::print(stderr,
               "switchyard: warning: compute.dtype = bf16 will be slow: this program was compiled for a processor "
               "without instructions for it\n");
}

}  // namespace switchyard
