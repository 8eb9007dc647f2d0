// switchyard bench exchange: dispatch and combine between ranks, as in training, against MPI_Alltoallv alone.
#include <algorithm>

#include "app/bench.hpp"
#include "app/bench_file.hpp"
#include "app/onednn_product.hpp"
#include "app/operands.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "comm/bare_all_to_all.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/routing.hpp"
#include "network/model_options.hpp"
#include "routing/exchange.hpp"

namespace switchyard {

namespace {

constexpr Index kFewestTokens = 16;
constexpr Index kTokensAtATime = 1024;  // short exchanges are repeated until the clock has seen about so many tokens

// Where token t goes.
struct Load {
  const char* name;
  Index (*expert)(Index token, Index num_experts);
};
constexpr Load kLoads[] = {
    {"even", [](Index token, Index experts) { return token % experts; }},
    {"half to one", [](Index token, Index experts) { return token % 2 == 0 ? 0 : 1 + token / 2 % (experts - 1); }},
};

// One microbatch's way to its experts and back, and the same messages for MPI_Alltoallv. Every rank has the same load.
// Rows travel as training's do: rounded, where the device multiplies operands that are rounded already.
class Journey {
 public:
  Journey(const Context& context, Communicator& group, const Config& config, const Load& load, Index tokens)
      : context_(context),
        group_(group),
        width_(config.model.width),
        rounds_(kernels::reads_rounded(context.device, product_precision(config))),
        row_bytes_(rounds_ ? kernels::rounded_cols(width_) * Index{sizeof(kernels::Bf16)}
                           : width_ * Index{sizeof(float)}),
        arena_(context.device),
        experts_(context.device, tokens),
        counts_(context.device, config.ffn.experts),
        assignment_of_slot_(context.device, tokens),
        slot_of_assignment_(context.device, tokens),
        ids_(context.device, tokens),
        x_(context.device, tokens * row_bytes_),
        slots_(context.device, tokens * row_bytes_),
        residual_(context.device, tokens * width_),
        result_(context.device, tokens * width_) {
    for (kernels::Array<std::byte>* array : {&x_, &slots_}) fill_array(context, array->data(), array->size());
    for (kernels::Array<float>* array : {&residual_, &result_})
      fill_array(context, array->data(), array->size() * Index{sizeof(float)});
    if (context.device == Device::kCuda) {
      host_slots_ = kernels::HostArray<std::byte>(context.device, slots_.size());
      host_ids_ = kernels::HostArray<std::int32_t>(context.device, tokens);
      fill_operand(host_slots_.data(), static_cast<std::size_t>(slots_.size()));
      std::fill_n(host_ids_.data(), tokens, 0);
    }
    route(load, tokens, config.ffn.experts);
  }

  // What travels between this rank and the others, there and back; and the messages of both directions. Collective.
  void agree() {
    const Exchange exchange(context_, group_, plan_, seconds_);
    const Index ranks = group_.size(), local = plan_.num_experts / ranks;
    std::vector<Index> sent(static_cast<std::size_t>(ranks)), received(static_cast<std::size_t>(ranks));
    for (Index expert = 0; expert < plan_.num_experts; ++expert)
      sent[static_cast<std::size_t>(expert / local)] += plan_.tokens_per_expert[static_cast<std::size_t>(expert)];
    for (const Segment& segment : exchange.segments())
      received[static_cast<std::size_t>(segment.source)] += segment.rows;
    const Index id_bytes = sizeof(std::int32_t);
    rows_there_ = BareAllToAll::messages(sent, received, row_bytes_);
    ids_there_ = BareAllToAll::messages(sent, received, id_bytes);
    rows_back_ = BareAllToAll::messages(received, sent, row_bytes_);
    bare_received_ = kernels::HostArray<std::byte>(context_.device, exchange.num_received() * row_bytes_);
    bare_ids_ = kernels::HostArray<std::int32_t>(context_.device, exchange.num_received());
    bare_returned_ = kernels::HostArray<std::byte>(context_.device, exchange.num_slots() * row_bytes_);
    const Index own = sent[static_cast<std::size_t>(group_.rank())];
    bytes_ = (exchange.num_slots() - own) * (row_bytes_ + id_bytes) + (exchange.num_received() - own) * row_bytes_;
  }
  // That this rank sends to others.
  Index bytes() const { return bytes_; }

  void run_exchange() {
    const kernels::ArenaScope scope(arena_);
    Exchange exchange(context_, group_, plan_, seconds_);
    exchange.ids_to_experts(arena_, ids_.data());
    const kernels::Operand received = exchange.to_experts(arena_, operand(slots_), width_);
    exchange.to_tokens(arena_, received, width_);
  }

  void run_bare(const BareAllToAll& bare) {
    bare.run(host_slots_.size() > 0 ? host_slots_.data() : slots_.data(), bare_received_.data(), rows_there_);
    bare.run(host_ids_.size() > 0 ? host_ids_.data() : ids_.data(), bare_ids_.data(), ids_there_);
    bare.run(bare_received_.data(), bare_returned_.data(), rows_back_);
  }

  // Before and after the exchange: rows into the order of experts, and back with the residual.
  void run_kernels() {
    kernels::dispatch(context_, {.num_slots = plan_.tokens,
                                 .cols = width_,
                                 .rows = operand(x_),
                                 .assignment_of_slot = plan_.assignment_of_slot,
                                 .slots = operand(slots_),
                                 .slot_ids = ids_.data()});
    kernels::combine(context_, {.tokens = plan_.tokens,
                                .cols = width_,
                                .slots = operand(slots_),
                                .slot_of_assignment = plan_.slot_of_assignment,
                                .residual = residual_.data(),
                                .y = result_.data()});
  }

  // That Exchange took to agree on counts, so far.
  double seconds_of_counts() const { return seconds_.wait; }

 private:
  void route(const Load& load, Index tokens, Index num_experts) {
    std::vector<std::int32_t> experts;
    for (Index token = 0; token < tokens; ++token)
      experts.push_back(static_cast<std::int32_t>(load.expert(token, num_experts)));
    experts_.upload(context_, experts);
    plan_.tokens = tokens;
    plan_.num_experts = num_experts;
    plan_.experts = experts_.data();
    plan_.assignment_of_slot = assignment_of_slot_.data();
    plan_.slot_of_assignment = slot_of_assignment_.data();
    kernels::sort_by_expert(context_, {.assignments = tokens,
                                       .num_experts = num_experts,
                                       .experts = plan_.experts,
                                       .tokens_per_expert = counts_.data(),
                                       .assignment_of_slot = plan_.assignment_of_slot,
                                       .slot_of_assignment = plan_.slot_of_assignment});
    plan_.tokens_per_expert.resize(static_cast<std::size_t>(num_experts));
    kernels::copy_to_host(context_, plan_.tokens_per_expert.data(), counts_.data(), num_experts * 4);
  }

  kernels::NewOperand operand(kernels::Array<std::byte>& rows) const {
    if (rounds_) return {nullptr, reinterpret_cast<kernels::Bf16*>(rows.data())};
    return reinterpret_cast<float*>(rows.data());
  }

  const Context& context_;
  Communicator& group_;
  Index width_;
  bool rounds_;
  Index row_bytes_;  // that travel
  kernels::Arena arena_;
  PhaseSeconds seconds_;
  RoutePlan plan_;
  kernels::Array<std::int32_t> experts_, counts_, assignment_of_slot_, slot_of_assignment_, ids_;
  kernels::Array<std::byte> x_, slots_;      // (tokens, row_bytes)
  kernels::Array<float> residual_, result_;  // (tokens, width)
  BareAllToAll::Messages rows_there_, ids_there_, rows_back_;
  kernels::HostArray<std::byte> bare_received_, bare_returned_;
  kernels::HostArray<std::int32_t> bare_ids_;
  // What MPI sends in place of a GPU's slots_ and ids_.
  kernels::HostArray<std::byte> host_slots_;
  kernels::HostArray<std::int32_t> host_ids_;
  Index bytes_ = 0;
};

enum Timed : std::size_t { kExchange, kBare, kKernels, kCounts, kNumTimed };
using Seconds = std::array<double, kNumTimed>;

struct Summary {
  Seconds median{}, least{};  // over the steps
};

// Of the slowest rank in each step.
Summary summarize(World& world, const std::vector<Seconds>& steps) {
  std::vector<Seconds> all(steps.size() * static_cast<std::size_t>(world.size()));
  all_gather(world.comm(), "bench", steps.data(), static_cast<Index>(steps.size() * sizeof(Seconds)), all.data());
  Summary result;
  for (std::size_t timed = 0; timed < kNumTimed; ++timed) {
    std::vector<double> slowest(steps.size());
    for (std::size_t i = 0; i < all.size(); ++i)
      slowest[i % steps.size()] = std::max(slowest[i % steps.size()], all[i][timed]);
    result.median[timed] = median(slowest);
    result.least[timed] = *std::min_element(slowest.begin(), slowest.end());
  }
  return result;
}

Summary measure(World& world, const Context& context, Journey& journey, const BareAllToAll& bare, Index tokens,
                Index num_steps) {
  const auto times = static_cast<int>(std::max<Index>(1, kTokensAtATime / tokens));
  const auto seconds_of = [&](const auto& run) {
    barrier(world.comm(), "bench");
    const double start = seconds_now();
    for (int i = 0; i < times; ++i) run();
    kernels::synchronize(context);
    return (seconds_now() - start) / times;
  };
  std::vector<Seconds> steps;
  for (Index i = -1; i < num_steps; ++i) {  // the first warms up
    Seconds step;
    step[kKernels] = seconds_of([&] { journey.run_kernels(); });
    const double counts_before = journey.seconds_of_counts();
    step[kExchange] = seconds_of([&] { journey.run_exchange(); });
    step[kCounts] = (journey.seconds_of_counts() - counts_before) / times;
    step[kBare] = seconds_of([&] { journey.run_bare(bare); });
    if (i >= 0) steps.push_back(step);
  }
  return summarize(world, steps);
}

Index largest_over_ranks(World& world, Index value) {
  std::vector<Index> all(static_cast<std::size_t>(world.size()));
  all_gather(world.comm(), "bench", &value, sizeof(value), all.data());
  return *std::max_element(all.begin(), all.end());
}

struct Columns {
  std::vector<Index> tokens, bytes;
  std::vector<std::string> load;
  std::vector<double> exchange, bare, counts, kernels, exchange_least, bare_least;

  std::vector<io::TableColumn> all() const {
    using namespace io::schema;
    return {column(kExchangeTokens, tokens),       column(kExchangeLoad, load),
            column(kExchangeBytes, bytes),         column(kExchangeSeconds, exchange),
            column(kExchangeBare, bare),           column(kExchangeCounts, counts),
            column(kExchangeKernels, kernels),     column(kExchangeLeast, exchange_least),
            column(kExchangeBareLeast, bare_least)};
  }
};

// The ratio stands once for the medians and once for the fastest steps, which other programs disturbed least.
void print_heading() {
  fmt::print("{:<11}{:>7}{:>11}{:>21}{:>21}{:>14}{:>14}\n", "load of", "", "KB a rank", "microseconds", "MB/s",
             "ratio of", "microseconds");
  fmt::print("{:<11}{:>7}{:>11}{:>10}{:>11}{:>10}{:>11}{:>8}{:>6}{:>7}{:>8}\n", "experts", "tokens", "sends",
             "exchange", "Alltoallv", "exchange", "Alltoallv", "median", "least", "counts", "kernels");
}

void print_row(const char* load, Index tokens, Index bytes, const Summary& seconds) {
  const double exchange = seconds.median[kExchange], bare = seconds.median[kBare], sent = static_cast<double>(bytes);
  fmt::print("{:<11}{:>7}{:>11.1f}{:>10.1f}{:>11.1f}{:>10.0f}{:>11.0f}{:>8.2f}{:>6.2f}{:>7.1f}{:>8.1f}\n", load, tokens,
             sent / 1e3, exchange * 1e6, bare * 1e6, sent / exchange / 1e6, sent / bare / 1e6, exchange / bare,
             seconds.least[kExchange] / seconds.least[kBare], seconds.median[kCounts] * 1e6,
             seconds.median[kKernels] * 1e6);
}

}  // namespace

void require_a_journey(const World& world, const Config& config, const BenchOptions& options) {
  if (config.ffn.kind != "moe")
    fail_usage(
        "bench exchange: {}ffn.kind = {} has no experts: name a model that has some (ffn.kind = moe): --config "
        "configs/vit-seed-switch.cfg",
        options.has_files ? "" : "without --config the defaults count, and ", config.ffn.kind);
  if (world.size() == 1 || config.parallel.experts == 1)
    fail_usage(
        "bench exchange: on {} with parallel.experts = {} every rank holds all experts and nothing travels; start "
        "at least two ranks that share them: mpirun -n 2 switchyard bench exchange --config FILE --parallel.experts 2",
        plural(world.size(), "rank"), config.parallel.experts);
}

int bench_exchange(World& world, const Config& config, const BenchOptions& options) {
  BenchFile file(world, options);
  Session session(config, world);
  Communicator& group = session.mesh.expert_group();
  const BareAllToAll bare(group);
  const Index microbatch_tokens = world.together([&] {
    ParameterTable table;
    const auto model = make_model(model_options(config, shape_of_data(config)), table);
    return config.train.microbatch * model->options().training_passes() * model->options().num_tokens();
  });
  if (world.speaks()) {
    fmt::print("{}\nmicrobatch {} = {} tokens; {}, experts over {}; medians over {} of the slowest rank\n\n",
               bench_heading(config, options), config.train.microbatch, microbatch_tokens, plural(world.size(), "rank"),
               plural(config.parallel.experts, "rank"), plural(options.steps, "step"));
    if (session.context.device == Device::kCuda)
      fmt::print("{}; MPI_Alltoallv: of as many bytes from host memory to host memory\n\n",
                 kernels::device_name(Device::kCuda));
    print_heading();
  }

  Columns columns;
  for (const Load& load : kLoads)
    for (Index tokens = kFewestTokens;; tokens *= 4) {
      const auto journey =
          world.together([&] { return std::make_unique<Journey>(session.context, group, config, load, tokens); });
      journey->agree();
      const Index bytes = largest_over_ranks(world, journey->bytes());
      const Summary seconds = measure(world, session.context, *journey, bare, tokens, options.steps);
      if (world.speaks()) print_row(load.name, tokens, bytes, seconds);
      columns.tokens.push_back(tokens);
      columns.load.emplace_back(load.name);
      columns.bytes.push_back(bytes);
      columns.exchange.push_back(seconds.median[kExchange]);
      columns.bare.push_back(seconds.median[kBare]);
      columns.counts.push_back(seconds.median[kCounts]);
      columns.kernels.push_back(seconds.median[kKernels]);
      columns.exchange_least.push_back(seconds.least[kExchange]);
      columns.bare_least.push_back(seconds.least[kBare]);
      if (tokens >= 4 * microbatch_tokens) break;
    }
  file.write("exchange", config, config.parallel.threads, columns.all());
  return 0;
}

}  // namespace switchyard
