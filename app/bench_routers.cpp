// switchyard bench routers: a training step of every router against one of the dense model, at equal active parameters.
#include "app/bench.hpp"
#include "app/bench_data.hpp"
#include "app/renewed_line.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "app/timed_step.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

struct Contender {
  std::string name;
  Config config;
};

// Every router with one expert per token and else as it comes, random and hash routing in all their kinds.
std::vector<Contender> contenders(const Config& config) {
  std::vector<Contender> all;
  const auto add = [&](const std::string& router, const std::string& variant, const auto& change) {
    Contender& one = all.emplace_back(Contender{router + variant, config});
    Config::Ffn defaults;  // of every key but those of the experts
    defaults.kind = "moe";
    defaults.hidden = config.ffn.hidden;
    defaults.experts = config.ffn.experts;
    defaults.every = config.ffn.every;
    defaults.router = router;
    defaults.top_k = 1;
    one.config.ffn = defaults;
    if (router == "expert_choice") one.config.ffn.capacity_train = 1;
    change(one.config.ffn);
  };
  const auto as_it_is = [](Config::Ffn&) {};
  for (const RouterRow& row : router_table()) {
    const std::string name = row.name;
    if (name == "random") {
      for (const char* granularity : {"batch", "sample", "token", "balanced"})
        add(name, fmt::format(", {}", granularity), [=](Config::Ffn& ffn) { ffn.granularity = granularity; });
    } else if (name == "hash") {
      for (const char* hash : {"position", "content"})
        add(name, fmt::format(" of {}", hash), [=](Config::Ffn& ffn) { ffn.hash = hash; });
    } else {
      add(name, "", as_it_is);
    }
  }
  return all;
}

Config dense_of(Config config) {
  config.ffn.kind = "dense";
  config.parallel.experts = 1;
  return config;
}

void print_row(const std::string& name, const std::vector<double>& dense, const std::vector<double>& own, Index batch) {
  std::vector<double> ratios;
  for (std::size_t round = 0; round < own.size(); ++round) ratios.push_back(dense[round] / own[round]);
  const auto fastest = [](const std::vector<double>& seconds) {
    return *std::min_element(seconds.begin(), seconds.end());
  };
  fmt::print("{:<20}{:>10.4f}{:>12.1f}{:>10.3f}{:>10.3f}{:>10.3f}{:>10.3f}\n", name, median(own),
             static_cast<double>(batch) / median(own), median(ratios), fastest(ratios),
             *std::max_element(ratios.begin(), ratios.end()), fastest(dense) / fastest(own));
}

}  // namespace

int bench_routers(World& world, const Config& config, const BenchOptions& options) {
  if (config.ffn.kind != "moe")
    throw AgreedError(
        "bench routers: ffn.kind = dense has no experts to route to: take a configuration with ffn.kind = "
        "moe, or --ffn.kind moe",
        ExitCode::kUsage);
  const Dataset data = world.together([&] { return data_for_bench(config); });
  world.together([&] { require_a_batch(config, data); });
  if (world.speaks())
    fmt::print("{}\n{} x {}, batch {}, microbatch {}, experts over {}; {} of one step each, medians\n\n",
               bench_heading(config, options), plural(world.size(), "rank"), plural(config.parallel.threads, "thread"),
               config.train.batch, config.train.microbatch, plural(config.parallel.experts, "rank"),
               plural(options.steps, "round"));
  if (world.speaks())
    fmt::print("{:<44}the dense step's time over its own\n{:<20}{:>10}{:>12}{:>10}{:>10}{:>10}{:>10}\n", "", "",
               "seconds", "images/s", "median", "least", "most", "fastest");
  RenewedLine progress(world.speaks());
  progress.show("preparing");
  Session session(config, world), session_of_dense(dense_of(config), world);
  const auto make = [&](const Config& one, Session& own) {
    return world.together([&] { return std::make_unique<Trainer>(one, own.context, own.mesh, data); });
  };
  const auto dense = make(dense_of(config), session_of_dense);
  timed_step(world, session_of_dense.context, *dense);
  for (const Contender& one : contenders(config)) {
    // One at a time: together they may need more memory than there is.
    const auto trainer = make(one.config, session);
    timed_step(world, session.context, *trainer);
    std::vector<double> seconds_of_dense, seconds;
    for (Index round = 0; round < options.steps; ++round) {
      progress.show(fmt::format("{}: round {} of {}", one.name, round + 1, options.steps));
      seconds_of_dense.push_back(timed_step(world, session_of_dense.context, *dense).seconds);
      seconds.push_back(timed_step(world, session.context, *trainer).seconds);
    }
    progress.clear();
    if (world.speaks()) print_row(one.name, seconds_of_dense, seconds, config.train.batch);
  }
  return 0;
}

}  // namespace switchyard
