#include "app/routing_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <sstream>

#include "app/text.hpp"
#include "core/error.hpp"
#include "io/schema.hpp"

namespace switchyard {

namespace {

constexpr std::size_t kNumbered = 8;  // experts that have room for a percentage beside the bar
constexpr std::size_t kBarsInLine = 32, kBars = 128;

constexpr std::array kUnicodeBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array kAsciiBars = {".", ":", "-", "=", "+", "*", "#", "@"};

// Four eighths are an even share.
const char* bar(double over_even, bool unicode) {
  if (over_even <= 0) return unicode ? "·" : "x";
  const auto height = static_cast<std::size_t>(std::clamp(std::lround(4 * over_even), 1L, 8L));
  return unicode ? kUnicodeBars[height - 1] : kAsciiBars[height - 1];
}

// Consecutive experts that share a bar.
std::size_t experts_per_bar(std::size_t experts) { return (experts + kBars - 1) / kBars; }

// "share of tokens by expert, %" or the bars under it, whichever is wider. A numbered bar is "▃ 12 ".
std::size_t bars_width(std::size_t experts) {
  return std::max<std::size_t>(28, experts <= kNumbered ? 5 * experts - 1 : std::min(experts, kBarsInLine));
}

// Lines of bars, each bars_width() columns wide.
std::vector<std::string> bar_lines(const std::vector<double>& share, bool unicode) {
  const std::size_t experts = share.size(), per_bar = experts_per_bar(experts), width = bars_width(experts);
  const bool numbered = experts <= kNumbered;
  std::vector<std::string> lines;
  std::size_t columns = 0;
  for (std::size_t first = 0; first < experts; first += per_bar) {
    const std::size_t last = std::min(experts, first + per_bar), bars = first / per_bar;
    if (bars % kBarsInLine == 0) {
      if (!lines.empty()) lines.back().append(width - columns, ' ');
      lines.emplace_back();
      columns = 0;
    }
    const double sum = std::accumulate(share.begin() + static_cast<std::ptrdiff_t>(first),
                                       share.begin() + static_cast<std::ptrdiff_t>(last), 0.0);
    const double even = static_cast<double>(last - first) / static_cast<double>(experts);
    lines.back() += bar(sum / even, unicode);
    ++columns;
    if (!numbered) continue;
    lines.back() += fmt::format("{:>3.0f}{}", 100 * sum, last < experts ? " " : "");
    columns += last < experts ? 4 : 3;
  }
  lines.back().append(width - columns, ' ');
  return lines;
}

std::string number(double value, int width, int digits) {
  return std::isnan(value) ? fmt::format("{:>{}}", "-", width) : fmt::format("{:>{}.{}f}", value, width, digits);
}

double mean(const std::vector<io::RoutingRow>& rows, std::vector<float> io::RoutingRow::*column, std::size_t layer) {
  double sum = 0, count = 0;
  for (const io::RoutingRow& row : rows)
    if (const float value = (row.*column)[layer]; !std::isnan(value)) {
      sum += value;
      ++count;
    }
  return count > 0 ? sum / count : std::nan("");
}

std::vector<std::string> block_names(const io::ResultsSummary& summary) {
  std::vector<std::string> names;
  if (const auto found = summary.attributes.find(io::schema::kMixtureBlocks); found != summary.attributes.end()) {
    std::istringstream text(found->second);
    for (std::string name; std::getline(text, name, ',');) names.push_back(name);
  }
  for (Index layer = static_cast<Index>(names.size()); layer < summary.shape.layers; ++layer)
    names.push_back(std::to_string(layer));
  return names;
}

}  // namespace

std::vector<LayerRouting> mean_routing(const std::vector<io::RoutingRow>& rows, io::ResultsShape shape) {
  const auto layers = static_cast<std::size_t>(shape.layers), experts = static_cast<std::size_t>(shape.experts);
  std::vector<LayerRouting> means(layers);
  for (std::size_t layer = 0; layer < layers; ++layer) {
    LayerRouting& of = means[layer];
    of.share.assign(experts, 0);
    double tokens = 0, dropped = 0;
    for (const io::RoutingRow& row : rows)
      for (std::size_t expert = 0; expert < experts; ++expert) {
        of.share[expert] += row.load[layer * experts + expert];
        tokens += row.load[layer * experts + expert];
        dropped += row.dropped[layer * experts + expert];
      }
    if (tokens > 0) {
      for (double& share : of.share) share /= tokens;
      of.dropped = dropped / tokens;
    }
    of.load_cv = mean(rows, &io::RoutingRow::load_cv, layer);
    of.max_over_mean = mean(rows, &io::RoutingRow::max_over_mean, layer);
    of.load_entropy = mean(rows, &io::RoutingRow::load_entropy, layer);
    of.gate_entropy = mean(rows, &io::RoutingRow::gate_entropy, layer);
    of.dead = mean(rows, &io::RoutingRow::dead_experts, layer);
  }
  return means;
}

std::string routing_table(const std::vector<LayerRouting>& layers, const std::vector<std::string>& blocks,
                          bool unicode) {
  const std::size_t experts = layers[0].share.size(), per_bar = experts_per_bar(experts), width = bars_width(experts);
  const char* heading = experts <= kNumbered ? "share of tokens by expert, %" : "share of tokens by expert";
  std::string text = fmt::format("{:>5}  {:<{}}  {:>5}  {:>8}  {:>12}  {:>6}  {:>9}\n", "", "", width, "", "",
                                 "entropy, of", "dead", "dropped") +
                     fmt::format("{:>5}  {:<{}}  {:>5}  {:>8}  {:>5}  {:>5}  {:>6}  {:>9}\n", "layer", heading, width,
                                 "CV", "max/mean", "load", "gate", "%", "%");
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerRouting& of = layers[layer];
    const std::vector<std::string> lines = bar_lines(of.share, unicode);
    text += fmt::format("{:>5}  {}  {}  {}  {}  {}  {}  {}\n", blocks[layer], lines[0], number(of.load_cv, 5, 2),
                        number(of.max_over_mean, 8, 2), number(of.load_entropy, 5, 2), number(of.gate_entropy, 5, 2),
                        number(100 * of.dead, 6, 1), number(100 * of.dropped, 9, 2));
    for (std::size_t line = 1; line < lines.size(); ++line)
      text += fmt::format("{:>5}  {}\n", "", lines[line].substr(0, lines[line].find_last_not_of(' ') + 1));
  }
  text += fmt::format("\n{} an even share, {} twice that or more, {} none{}; entropy in nats, {:.2f} where even\n",
                      bar(1, unicode), bar(2, unicode), bar(0, unicode),
                      per_bar > 1 ? fmt::format("; {} experts a bar", per_bar) : "",
                      std::log(static_cast<double>(experts)));
  return text;
}

namespace {

// describe_model()'s text on two lines, so that neither is longer than the table is wide.
std::string by_halves(std::string text) {
  const std::size_t middle = text.find("; ");
  return middle == std::string::npos ? text : text.replace(middle, 2, ";\n");
}

}  // namespace

int inspect_routing(const std::string& path, Index num_steps) {
  if (num_steps < 1) fail_usage("--last = {}: give a whole number of at least 1", num_steps);
  const io::ResultsSummary summary = io::describe_results(path);
  if (!summary.readable)
    fail("{}{}", summary.problem, summary.is_results ? "" : "; --routing shows what a results file holds");
  if (summary.shape.tree_layers > 0)
    fail(
        "{}: a tree has no router: its leaves' shares and nodes' entropies are the columns {} and {}, which h5py reads",
        path, io::schema::kTreesShare.path, io::schema::kTreesEntropy.path);
  if (summary.shape.layers == 0) fail("{}: no mixture in this run (ffn.kind = moe): there is no routing to show", path);
  const std::vector<io::RoutingRow> rows = io::read_routing(path, {.most = num_steps});
  if (rows.empty())
    fail("{}: no rows of routing yet: the first follows run.log_every steps after the start, written within a second",
         path);
  const auto model = summary.attributes.find("model");
  fmt::print("{}: routing, mean over the last {}, steps {} to {}\n{}\n\n{}", path,
             plural(static_cast<Index>(rows.size()), "logged step"), rows.front().step, rows.back().step,
             model == summary.attributes.end() ? "" : by_halves(model->second),
             routing_table(mean_routing(rows, summary.shape), block_names(summary), speaks_unicode()));
  return 0;
}

}  // namespace switchyard
