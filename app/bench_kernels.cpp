// switchyard bench kernels: every kernel against the limit that the machine sets it.
#include <algorithm>
#include <ctime>

#include "app/bench.hpp"
#include "app/bench_file.hpp"
#include "app/kernel_cases.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

constexpr double kShortest = 1e-4;  // seconds that the clock runs at a time

struct Heading {
  Limit limit;
  const char *title, *work, *unit, *limited_by;
};
constexpr Heading kHeadings[] = {
    {Limit::kOneDnn, "Products (m x n x k), against oneDNN's of the same shape", "MFLOP", "GFLOP/s", "oneDNN"},
    {Limit::kMultiplyAdds,
     "Attention (samples x tokens x heads x head size) and visits of one leaf each (rows x width x\n"
     "leaf x out), against fused multiply-adds in registers",
     "MFLOP", "GFLOP/s", "multiply-adds"},
    {Limit::kMemory, "The rest, against reading and writing the same arrays once", "MB", "GB/s", "memory"},
};

const Heading& heading_of(Limit limit) {
  return *std::find_if(std::begin(kHeadings), std::end(kHeadings), [&](const Heading& h) { return h.limit == limit; });
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

template <typename Run>
double seconds_of(const Run& run, int times) {
  const double start = processor_seconds_now();
  for (int i = 0; i < times; ++i) run();
  return (processor_seconds_now() - start) / times;
}

// How often to call what is too short for the clock. The first call warms caches and scratch memory up.
template <typename Run>
int times_for(const Run& run) {
  run();
  return static_cast<int>(std::clamp(kShortest / std::max(seconds_of(run, 1), 1e-9), 1.0, 1e4));
}

Measured measure(const KernelCase::Prepared& prepared, Index steps) {
  const int times = times_for(prepared.run), limit_times = times_for(prepared.run_limit);
  std::vector<double> seconds, limit_seconds;
  for (Index i = 0; i < steps; ++i) {
    seconds.push_back(seconds_of(prepared.run, times));
    limit_seconds.push_back(seconds_of(prepared.run_limit, limit_times));
  }
  const double middle = median(seconds);
  return {middle, prepared.work / middle, prepared.limit_work / median(limit_seconds)};
}

void print_heading(const Heading& heading) {
  fmt::print("\n{}\n{:<33}{:<25}{:>12}{:>8}{:>8}{:>8}{:>6}\n", heading.title, "", "", "microseconds", heading.work,
             heading.unit, "limit", "share");
}

// Those that one rank updates.
Index num_parameters(const Config& config, const ParameterTable& table) {
  Index sum = 0;
  for (ParameterId id = 0; id < table.size(); ++id)
    sum += table[id].per_expert ? table[id].size() / config.parallel.experts : table[id].size();
  return sum;
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
  const Context context{Device::kCpu, &one_thread};
  Columns columns;
  const auto cases = world.together([&] {
    ParameterTable table;
    const auto model = make_model(model_options(config, shape_of_data(config)), table);
    return kernel_cases(config, model->options(), num_parameters(config, table));
  });
  if (world.speaks())
    fmt::print("{}\nmicrobatch {}; {} x 1 thread; processor time on rank 0, medians of {}\n",
               bench_heading(config, options), config.train.microbatch, plural(world.size(), "rank"), options.steps);

  const Heading* heading = nullptr;
  for (const KernelCase& each : cases) {
    // Ranks measure the same kernel at the same time, as they run it in training.
    const auto prepared = world.together([&] { return each.prepare(context); });
    const Measured measured = measure(prepared, options.steps);
    if (!world.speaks()) continue;
    if (heading != &heading_of(each.limit)) print_heading(*(heading = &heading_of(each.limit)));
    const double share = measured.rate / measured.limit;
    fmt::print("{:<33}{:<25}{:>12.1f}{:>8.3g}{:>8.3g}{:>8.3g}{:>6.2f}\n", each.name, each.shape, measured.seconds * 1e6,
               prepared.work / 1e6, measured.rate / 1e9, measured.limit / 1e9, share);
    columns.name.push_back(each.name);
    columns.shape.push_back(each.shape);
    columns.unit.emplace_back(heading->unit);
    columns.limited_by.emplace_back(heading->limited_by);
    columns.seconds.push_back(measured.seconds);
    columns.work.push_back(prepared.work);
    columns.rate.push_back(measured.rate / 1e9);
    columns.limit.push_back(measured.limit / 1e9);
    columns.share.push_back(share);
  }
  if (config.ffn.kind != "moe" && world.speaks())
    fmt::print("\nThis model has no experts: kernels of routing and exchange have no shape in it.\n");
  file.write("kernels", config, 1, columns.all());
  return 0;
}

}  // namespace switchyard
