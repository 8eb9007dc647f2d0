#include "app/bench_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>

#include "app/session.hpp"
#include "app/stop_signals.hpp"
#include "kernels/api/device.hpp"

namespace switchyard {

namespace {

std::string host_name() {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return host;
}

// "AMD EPYC, 2 cores" or "AMD EPYC, 2 cores; NVIDIA H100, sm_90"
std::string machine(Device device) {
  std::string processor = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name") && line.find(": ") != line.npos) {
      processor = line.substr(line.find(": ") + 2);
      break;
    }
  const std::string text = fmt::format("{}, {} cores", processor, sysconf(_SC_NPROCESSORS_ONLN));
  return device == Device::kCpu ? text : text + "; " + kernels::device_name(device);
}

std::string date() {
  const std::time_t now = std::time(nullptr);
  char text[40] = "";
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace

BenchFile::BenchFile(World& world, const BenchOptions& options) : world_(world), options_(options) {
  world.together([&] {
    if (world.speaks() && !options.output.empty()) file_.emplace(options.output, options.overwrite);
  });
}

void BenchFile::write(const std::string& benchmark, const Config& config, Index threads,
                      const std::vector<io::TableColumn>& columns) {
  world_.together([&] {
    if (!file_) return;
    ignore_stop_signals();
    const Device device = config.compute.device == "cuda" ? Device::kCuda : Device::kCpu;
    file_->write(columns, {{"benchmark", benchmark},
                           {"command", options_.command},
                           {"date", date()},
                           {"host", host_name()},
                           {"machine", machine(device)},
                           {"model", describe_model(config)},
                           {"ranks", std::to_string(world_.size())},
                           {"threads", std::to_string(threads)},
                           {"experts_over", std::to_string(std::min<Index>(config.parallel.experts, world_.size()))},
                           {"steps", std::to_string(options_.steps)},
                           {"switchyard", SWITCHYARD_VERSION},
                           {"versions", library_versions(device)},
                           {io::schema::kConfig, to_text(config)}});
    fmt::print("\noutput {}\n", options_.output);
  });
}

}  // namespace switchyard
