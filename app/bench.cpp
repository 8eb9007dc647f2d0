// switchyard bench: how fast this program runs on this machine, and against what.
#include "app/bench.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>

#include <unistd.h>

#include "app/commands.hpp"
#include "app/session.hpp"
#include "app/shell_words.hpp"
#include "app/stop_signals.hpp"
#include "config/command_line.hpp"
#include "config/keys.hpp"

namespace switchyard {

namespace {

namespace po = boost::program_options;

struct Benchmark {
  const char* name;
  int (*run)(World& world, const Config& config, const BenchOptions& options);
  bool writes_file;
  bool transformers_only;  // with feed-forward networks that are dense or mixtures
};
constexpr Benchmark kBenchmarks[] = {
    {"step", bench_step, false, false},      {"products", bench_products, false, false},
    {"kernels", bench_kernels, true, false}, {"exchange", bench_exchange, true, true},
    {"routers", bench_routers, false, true}, {"inference", bench_inference, true, false}};

const Benchmark& benchmark_named(const CommandLine& line) {
  if (!line.positional.empty())
    for (const Benchmark& benchmark : kBenchmarks)
      if (line.positional[0] == benchmark.name) return benchmark;
  std::vector<std::string> names;
  for (const Benchmark& benchmark : kBenchmarks) names.emplace_back(benchmark.name);
  fail_usage("bench: say what to time, one of {}: switchyard bench step --config FILE.", joined(names, ", "));
}

Index steps_from(const std::string& text) {
  Index steps = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, steps);
  if (error != std::errc() || stop != end || steps < 1)
    fail_usage("--steps{}: give a whole number of at least 1", text.empty() ? "" : " = " + text);
  return steps;
}

// "32,8,1"
std::vector<Index> sizes_from(const char* option, const std::string& text) {
  constexpr Index kMost = 1048576;  // as train.batch
  std::vector<Index> sizes;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    Index size = 0;
    const auto [stop, error] = std::from_chars(at, end, size);
    const bool is_whole = error == std::errc() && (stop == end || (*stop == ',' && stop + 1 < end));
    if (!is_whole || size < 1 || size > kMost)
      fail_usage("--{} = {}: give whole numbers from 1 to {}, with commas between them: --{} 32,8,1", option, text,
                 kMost, option);
    if (std::find(sizes.begin(), sizes.end(), size) != sizes.end())
      fail_usage("--{} = {}: {} is there twice: keep one of them", option, text, size);
    sizes.push_back(size);
    at = stop == end ? end : stop + 1;
  }
  return sizes;
}

BenchOptions options_from(const CommandLine& line, const Benchmark& benchmark, const std::string& command) {
  const BenchOptions options{.steps = steps_from(line.options["steps"].as<std::string>()),
                             .profile = line.options["profile"].as<bool>(),
                             .output = line.options["output"].as<std::string>(),
                             .overwrite = line.options["overwrite"].as<bool>(),
                             .leaves = sizes_from("leaves", line.options["leaves"].as<std::string>()),
                             .batches = sizes_from("batches", line.options["batches"].as<std::string>()),
                             .has_files = !line.files.empty(),
                             .command = command};
  if (!benchmark.writes_file && !options.output.empty())
    fail_usage("--output: bench {} writes no file; bench kernels, exchange and inference do", benchmark.name);
  if (options.overwrite && options.output.empty())
    fail_usage("--overwrite: there is no file to be replaced without --output FILE");
  if (options.profile && benchmark.run != bench_step) fail_usage("--profile: bench step alone has a profile");
  if (benchmark.run != bench_inference && !(options.leaves.empty() && options.batches.empty()))
    fail_usage("--leaves, --batches: bench inference alone has leaves and batch sizes to choose");
  return options;
}

void check_mesh(const Benchmark& benchmark, const World& world, const Config& config, const BenchOptions& options) {
  if (benchmark.transformers_only && config.model.kind != "vit")
    fail_usage("bench {}: model.kind = {} has not the layers that it times: take model.kind = vit.", benchmark.name,
               config.model.kind);
  if (benchmark.transformers_only && config.ffn.kind == "fff")
    fail_usage("bench {}: knows no tree: take ffn.kind = dense or moe; bench step times any model.", benchmark.name);
  if (benchmark.run == bench_inference) return require_one_rank(world, config, options);
  if (benchmark.run == bench_exchange) require_a_journey(world, config, options);
  if (world.size() == 1 && config.parallel.experts > 1)
    fail_usage(
        "parallel.experts = {0} on 1 rank: start {0} ranks that share the experts, mpirun -n {0} switchyard bench {1}, "
        "or set parallel.experts to 1",
        config.parallel.experts, benchmark.name);
  check_ranks(config, world.size());
}

// Rank 0's. There is nothing to save.
void on_stop_signal(int) {
  constexpr char kMessage[] = "switchyard: bench stopped before its end\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  _exit(static_cast<int>(ExitCode::kFailure));
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::string bench_heading(const Config& config, const BenchOptions& options) {
  return describe_model(config) + (options.has_files ? "" : "\nno --config: the defaults of switchyard train --help");
}

int bench_command(World& world, const Words& arguments) {
  po::options_description own;
  own.add_options()("steps", po::value<std::string>()->default_value("10")->implicit_value(""), "")(
      "profile", po::bool_switch(), "")("output", po::value<std::string>()->default_value(""), "")(
      "overwrite", po::bool_switch(), "")("leaves", po::value<std::string>()->default_value(""), "")(
      "batches", po::value<std::string>()->default_value(""), "");
  const CommandLine line = world.together([&] { return parse_command_line(arguments, own, 1); });
  const Benchmark* benchmark = nullptr;
  BenchOptions options;
  const Config config = world.together([&] {
    benchmark = &benchmark_named(line);
    options = options_from(line, *benchmark, "switchyard bench " + shell_line(arguments));
    Config checked = config_from(line);
    check_mesh(*benchmark, world, checked, options);
    return checked;
  });
  world.set_timeout(config.parallel.timeout);
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // each line when it is known, in a file too
  // The other ranks stay until mpirun, which sees rank 0 go, ends them: were one of them first, it could end rank 0
  // before that has spoken. No handler there may return, either: oneDNN's products use the stack pointer for data, and
  // a signal's frame would overwrite some of it.
  const auto handler = world.speaks() ? on_stop_signal : SIG_IGN;
  set_stop_handler(handler);
  std::signal(SIGPIPE, handler);
  return benchmark->run(world, config, options);
}

}  // namespace switchyard
