// switchyard bench routers: a training step of every router against one of the dense model, at equal active parameters.
#include "app/bench.hpp"
#include "app/bench_data.hpp"
#include "app/renewed_line.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

struct Contender {
  std::string name;
  Config config;
  std::unique_ptr<Trainer> trainer = nullptr;
  std::vector<double> seconds = {}, ratios = {};  // of each step, and the dense model's of the same round over it
};

// Every router with one expert per token and else as it comes, random and hash routing in all their kinds; the dense
// model first.
std::vector<Contender> contenders(const Config& config) {
  std::vector<Contender> all;
  const auto add = [&](const std::string& router, const std::string& variant, const auto& change) {
    Contender& one = all.emplace_back(Contender{router + variant, config});
    Config::Ffn defaults;  // of every key but those of the experts
    defaults.kind = "moe";
    defaults.hidden = config.ffn.hidden;
    defaults.experts = config.ffn.experts;
    defaults.every = config.ffn.every;
    defaults.shared = config.ffn.shared;
    defaults.router = router;
    defaults.top_k = 1;
    one.config.ffn = defaults;
    if (router == "expert_choice") one.config.ffn.capacity_train = 1;
    change(one.config.ffn);
  };
  Contender& dense = all.emplace_back(Contender{"dense", config});
  dense.config.ffn.kind = "dense";
  dense.config.parallel.experts = 1;
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

// The first to take its step in a round moves on by one from round to round, so that none always follows the same.
void take_round(World& world, std::vector<Contender>& all, Index round) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    Contender& one = all[(i + static_cast<std::size_t>(round)) % all.size()];
    barrier(world.comm(), "bench");
    one.seconds.push_back(one.trainer->train_step(false).seconds);
  }
  for (Contender& one : all) one.ratios.push_back(all[0].seconds.back() / one.seconds.back());
}

}  // namespace

int bench_routers(World& world, const Config& config, const BenchOptions& options) {
  if (config.ffn.kind != "moe")
    throw AgreedError(
        "bench routers: ffn.kind = dense has no experts to route to: take a configuration with ffn.kind = "
        "moe, or --ffn.kind moe",
        ExitCode::kUsage);
  const Dataset data = world.together([&] { return data_for_bench(config); });
  if (world.speaks())
    fmt::print("{}\n{} x {}, batch {}, microbatch {}, experts over {}; {} of one step each, medians\n\n",
               bench_heading(config, options), plural(world.size(), "rank"), plural(config.parallel.threads, "thread"),
               config.train.batch, config.train.microbatch, plural(config.parallel.experts, "rank"),
               plural(options.steps, "round"));
  RenewedLine progress(world.speaks());
  progress.show("preparing");
  Session session(config, world);
  Config alone = config;
  alone.parallel.experts = 1;
  Session session_of_dense(alone, world);
  std::vector<Contender> all = contenders(config);
  for (Contender& one : all) {
    Session& own = one.config.ffn.kind == "dense" ? session_of_dense : session;
    one.trainer = world.together([&] { return std::make_unique<Trainer>(one.config, own.context, own.mesh, data); });
  }
  for (Index round = -1; round < options.steps; ++round) {
    progress.show(round < 0 ? "warming up" : fmt::format("round {} of {}", round + 1, options.steps));
    take_round(world, all, round + 1);
    if (round < 0)
      for (Contender& one : all) one.seconds.clear(), one.ratios.clear();
  }
  if (!world.speaks()) return 0;
  progress.clear();
  fmt::print("{:<20}{:>10}{:>12}{:>22}{:>10}{:>10}\n", "", "seconds", "images/s", "of dense, its median", "least",
             "most");
  for (const Contender& one : all) {
    const auto [least, most] = std::minmax_element(one.ratios.begin(), one.ratios.end());
    fmt::print("{:<20}{:>10.4f}{:>12.1f}{:>22.3f}{:>10.3f}{:>10.3f}\n", one.name, median(one.seconds),
               static_cast<double>(config.train.batch) / median(one.seconds), median(one.ratios), *least, *most);
  }
  return 0;
}

}  // namespace switchyard
