// switchyard bench kernels: every kernel against the limit that the machine sets it.
#include <algorithm>
#include <ctime>
#include <optional>

#include "app/bench.hpp"
#include "app/bench_file.hpp"
#include "app/kernel_cases.hpp"
#include "app/large_product.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "network/model_options.hpp"

namespace switchyard {

namespace {

// Seconds that the clock runs at a time. On a GPU the host's first launch should be a small part of them.
constexpr double kShortest = 1e-4, kShortestOnGpu = 2e-3;

struct Heading {
  Device device;
  Limit limit;
  const char *title, *work, *unit, *limited_by;
};
constexpr const char* kAttention =
    "Attention (samples x tokens x heads x head size) and visits of one leaf each (rows x width x\n"
    "leaf x out), against ";
constexpr Heading kHeadings[] = {
    {Device::kCpu, Limit::kProduct, "Products (m x n x k), against oneDNN's of the same shape", "MFLOP", "GFLOP/s",
     "oneDNN"},
    {Device::kCpu, Limit::kMultiplyAdds, "fused multiply-adds in registers", "MFLOP", "GFLOP/s", "multiply-adds"},
    {Device::kCpu, Limit::kMemory, "The rest, against reading and writing the same arrays once", "MB", "GB/s",
     "memory"},
    {Device::kCuda, Limit::kProduct, "Products (m x n x k), against the large product", "MFLOP", "GFLOP/s",
     "large product"},
    {Device::kCuda, Limit::kMultiplyAdds, "the large product", "MFLOP", "GFLOP/s", "large product"},
    {Device::kCuda, Limit::kMemory, "The rest, against a copy that reads and writes as many bytes", "MB", "GB/s",
     "copy"},
};

const Heading& heading_of(Device device, Limit limit) {
  return *std::find_if(std::begin(kHeadings), std::end(kHeadings),
                       [&](const Heading& h) { return h.device == device && h.limit == limit; });
}

struct Measured {
  double seconds = 0;          // of one call
  double rate = 0, limit = 0;  // of work a second
};

// Of this thread's time on a processor: what other programs take from it is not the kernel's.
double processor_seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

using Run = std::function<void()>;

double seconds_of(const Context& context, const Run& run, int times) {
  const auto run_all = [&] {
    for (int i = 0; i < times; ++i) run();
  };
  if (context.device == Device::kCuda) return kernels::seconds_of(context, run_all) / times;
  const double start = processor_seconds_now();
  run_all();
  return (processor_seconds_now() - start) / times;
}

// How often to call what is too short for the clock. The first call warms caches and scratch memory up.
int times_for(const Context& context, const Run& run) {
  run();
  const double shortest = context.device == Device::kCuda ? kShortestOnGpu : kShortest;
  return static_cast<int>(std::clamp(shortest / std::max(seconds_of(context, run, 1), 1e-9), 1.0, 1e4));
}

Measured measure(const Context& context, const KernelCase::Prepared& prepared, Index steps) {
  const int times = times_for(context, prepared.run), limit_times = times_for(context, prepared.run_limit);
  std::vector<double> seconds, limit_seconds;
  for (Index i = 0; i < steps; ++i) {
    seconds.push_back(seconds_of(context, prepared.run, times));
    limit_seconds.push_back(seconds_of(context, prepared.run_limit, limit_times));
  }
  const double middle = median(seconds);
  return {middle, prepared.work / middle, prepared.limit_work / median(limit_seconds)};
}

void print_heading(const Heading& heading) {
  fmt::print("\n{}{}\n{:<33}{:<25}{:>12}{:>8}{:>8}{:>8}{:>6}\n",
             heading.limit == Limit::kMultiplyAdds ? kAttention : "", heading.title, "", "", "microseconds",
             heading.work, heading.unit, "limit", "share");
}

// Seven characters at most, from a few bytes to a GPU's rates.
std::string digits(double number) {
  if (number >= 1000) return fmt::format("{:.0f}", number);
  return number < 0.01 ? fmt::format("{:.2g}", number) : fmt::format("{:.3g}", number);
}

void print_row(const KernelCase& one, double work, const Measured& measured) {
  // A long shape takes the place of blanks.
  const auto blanks = static_cast<int>(12 - std::max<std::size_t>(one.shape.size(), 25) + 25);
  fmt::print("{:<33}{:<25}{:>{}.1f}{:>8}{:>8}{:>8}{:>6.2f}\n", one.name, one.shape, measured.seconds * 1e6, blanks,
             digits(work / 1e6), digits(measured.rate / 1e9), digits(measured.limit / 1e9),
             measured.rate / measured.limit);
}

// Those that one rank updates.
Index num_parameters(const Config& config, const ParameterTable& table) {
  Index sum = 0;
  for (ParameterId id = 0; id < table.size(); ++id)
    sum += table[id].per_expert ? table[id].size() / config.parallel.experts : table[id].size();
  return sum;
}

// large_product: the GPU's, or null.
void print_first_lines(const World& world, const Config& config, const BenchOptions& options,
                       const LargeProduct* large_product) {
  fmt::print("{}\nmicrobatch {}; {} x 1 {} on rank 0, medians of {}\n", bench_heading(config, options),
             config.train.microbatch, plural(world.size(), "rank"),
             large_product ? "GPU; its time" : "thread; processor time", options.steps);
  if (large_product)
    fmt::print(
        "{}; large product: {}, {:.0f} GFLOP/s\n"
        "Arrays that fit the GPU's second-level cache may come from there.\n",
        kernels::device_name(Device::kCuda), large_product->shape(),
        large_product->flop() / large_product->seconds() / 1e9);
}

struct Columns {
  std::vector<std::string> name, shape, unit, limited_by;
  std::vector<double> seconds, work, rate, limit, share;

  std::vector<io::TableColumn> all() const {
    using namespace io::schema;
    return {column(kKernelsName, name),       column(kKernelsShape, shape),
            column(kKernelsUnit, unit),       column(kKernelsLimitedBy, limited_by),
            column(kKernelsSeconds, seconds), column(kKernelsWork, work),
            column(kKernelsRate, rate),       column(kKernelsLimit, limit),
            column(kKernelsShare, share)};
  }
};

}  // namespace

int bench_kernels(World& world, const Config& config, const BenchOptions& options) {
  BenchFile file(world, options);
  ThreadPool one_thread(1);
  const RankDevice device(config, world);
  const Context context{device.device(), &one_thread, device.stream()};
  Columns columns;
  std::optional<LargeProduct> large_product;
  const auto cases = world.together([&] {
    if (device.device() == Device::kCuda) large_product.emplace(context, product_precision(config));
    ParameterTable table;
    const auto model = make_model(model_options(config, shape_of_data(config)), table);
    return kernel_cases(context, config, model->options(), num_parameters(config, table),
                        large_product ? &*large_product : nullptr);
  });
  if (world.speaks()) print_first_lines(world, config, options, large_product ? &*large_product : nullptr);

  const Heading* heading = nullptr;
  for (const KernelCase& each : cases) {
    // Ranks measure the same kernel at the same time, as they run it in training.
    const auto prepared = world.together([&] { return each.prepare(); });
    const Measured measured = world.together([&] { return measure(context, prepared, options.steps); });
    if (!world.speaks()) continue;
    const Heading& own_heading = heading_of(context.device, each.limit);
    if (heading != &own_heading) print_heading(*(heading = &own_heading));
    print_row(each, prepared.work, measured);
    columns.name.push_back(each.name);
    columns.shape.push_back(each.shape);
    columns.unit.emplace_back(heading->unit);
    columns.limited_by.emplace_back(heading->limited_by);
    columns.seconds.push_back(measured.seconds);
    columns.work.push_back(prepared.work);
    columns.rate.push_back(measured.rate / 1e9);
    columns.limit.push_back(measured.limit / 1e9);
    columns.share.push_back(measured.rate / measured.limit);
  }
  if (config.ffn.kind != "moe" && world.speaks())
    fmt::print("\nThis model has no experts: kernels of routing and exchange have no shape in it.\n");
  file.write("kernels", config, 1, columns.all());
  return 0;
}

}  // namespace switchyard
