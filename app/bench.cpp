// switchyard bench: how fast this program runs on this machine, and against what.
#include "app/bench.hpp"

#include <algorithm>

#include "app/commands.hpp"
#include "config/command_line.hpp"
#include "config/keys.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;

constexpr const char* kHelp =
    "switchyard bench step --config FILE [--steps N] [--profile] [--KEY VALUE ...]\n"
    "switchyard bench products --config FILE [--steps N] [--KEY VALUE ...]\n"
    "switchyard bench kernels --config FILE [--steps N] [--output FILE.h5] [--KEY VALUE ...]\n"
    "switchyard bench exchange --config FILE --parallel.experts P [--steps N] [--output FILE.h5] [--KEY VALUE ...]\n\n"
    "step: times N training steps (10 unless told) of the configured model on data of its shape, and in turn with\n"
    "them the matrix products alone, at the model's own shapes, as oneDNN computes them. Prints images/s, GFLOP/s,\n"
    "and the share of oneDNN's rate. --profile: also where a step's time goes on rank 0, by kernel and by phase.\n\n"
    "products: times this program's matrix products and oneDNN's in turn, N times each, shape by shape.\n\n"
    "kernels: times every kernel at the shapes that one microbatch gives it, on one thread of each rank, in processor\n"
    "time, and in turn with it its limit: for products oneDNN's, for attention the processor's multiply-adds, for the\n"
    "rest reading and writing the same arrays once. Kernels that draw random numbers (p = ...) or take exponentials\n"
    "have that as their real limit: their share is below 1 however good they are.\n\n"
    "exchange: times the tokens' way to their experts and back, in turn with MPI_Alltoallv of the same messages, from\n"
    "16 tokens a rank to several microbatches. Needs at least two ranks and parallel.experts above 1.\n\n"
    "  --output FILE.h5       kernels and exchange: the printed table as an HDF5 file as well\n"
    "  --overwrite            replace a file of that name\n";

struct Benchmark {
  const char* name;
  int (*run)(World& world, const Config& config, const BenchOptions& options);
  bool writes_file;
};
constexpr Benchmark kBenchmarks[] = {{"step", bench_step, false},
                                     {"products", bench_products, false},
                                     {"kernels", bench_kernels, true},
                                     {"exchange", bench_exchange, true}};

const Benchmark& benchmark_named(const CommandLine& line) {
  if (!line.positional.empty())
    for (const Benchmark& benchmark : kBenchmarks)
      if (line.positional[0] == benchmark.name) return benchmark;
  std::vector<std::string> names;
  for (const Benchmark& benchmark : kBenchmarks) names.emplace_back(benchmark.name);
  fail_usage("bench: say what to time, one of {}: switchyard bench step --config FILE.", joined(names, ", "));
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

int bench_command(World& world, const std::vector<std::string>& arguments) {
  po::options_description own;
  own.add_options()("steps", po::value<Index>()->default_value(10), "")("profile", po::bool_switch(), "")(
      "output", po::value<std::string>()->default_value(""), "")("overwrite", po::bool_switch(), "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own, 1); });
  if (line.help) {
    if (world.speaks()) fmt::print("{}", kHelp);
    return 0;
  }
  const BenchOptions options{.steps = line.options["steps"].as<Index>(),
                             .profile = line.options["profile"].as<bool>(),
                             .output = line.options["output"].as<std::string>(),
                             .overwrite = line.options["overwrite"].as<bool>(),
                             .command = "switchyard bench " + joined(arguments, " ")};
  const Benchmark* benchmark = nullptr;
  const Config config = world.together([&] {
    benchmark = &benchmark_named(line);
    if (options.steps < 1) fail_usage("--steps = {}: at least 1", options.steps);
    if (!benchmark->writes_file && !options.output.empty())
      fail_usage("--output: bench {} writes no file; bench kernels and bench exchange do", benchmark->name);
    if (options.overwrite && options.output.empty())
      fail_usage("--overwrite: there is no file to be replaced without --output FILE");
    if (options.profile && benchmark->run != bench_step) fail_usage("--profile: bench step alone has a profile");
    Config checked = config_from(line);
    check_ranks(checked, world.size());
    return checked;
  });
  world.comm().set_timeout(config.parallel.timeout);
  return benchmark->run(world, config, options);
}

}  // namespace switchyard
