#include "app/routing_table.hpp"

#include <fmt/format.h>

#include <cmath>
#include <sstream>

#include "app/share_bars.hpp"
#include "app/text.hpp"
#include "app/tree_table.hpp"
#include "core/error.hpp"
#include "io/schema.hpp"

namespace switchyard {

namespace {

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

// Of the layers of a table; `attribute` lists them.
std::vector<std::string> block_names(const io::ResultsSummary& summary, const char* attribute, Index layers) {
  std::vector<std::string> names;
  if (const auto found = summary.attributes.find(attribute); found != summary.attributes.end()) {
    std::istringstream text(found->second);
    for (std::string name; std::getline(text, name, ',');) names.push_back(name);
  }
  for (Index layer = std::ssize(names); layer < layers; ++layer) names.push_back(std::to_string(layer));
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
  const std::size_t experts = layers[0].share.size(), width = bars_width(experts);
  const std::string heading = bars_heading(experts, "expert");
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
  return text + fmt::format("\n{}; entropy in nats, {:.2f} where even\n", bars_legend(experts, "experts", unicode),
                            std::log(static_cast<double>(experts)));
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
  const io::ResultsShape& shape = summary.shape;
  if (shape.layers == 0 && shape.tree_layers == 0)
    fail("{}: no mixture or tree in this run (ffn.kind = moe or fff): there is no routing to show", path);
  const auto print = [&](const auto& rows, const auto& table) {
    if (rows.empty())
      fail("{}: no rows of routing yet: the first follows run.log_every steps after the start, written within a second",
           path);
    const auto model = summary.attributes.find("model");
    fmt::print("{}: routing, mean over the last {}, steps {} to {}\n{}\n\n{}", path,
               plural(std::ssize(rows), "logged step"), rows.front().step, rows.back().step,
               model == summary.attributes.end() ? "" : by_halves(model->second), table(rows));
  };
  if (shape.tree_layers > 0)
    print(io::read_trees(path, {.most = num_steps}), [&](const std::vector<io::TreeRow>& rows) {
      return tree_table(mean_trees(rows, shape), block_names(summary, io::schema::kTreeBlocks, shape.tree_layers),
                        speaks_unicode());
    });
  else
    print(io::read_routing(path, {.most = num_steps}), [&](const std::vector<io::RoutingRow>& rows) {
      return routing_table(mean_routing(rows, shape), block_names(summary, io::schema::kMixtureBlocks, shape.layers),
                           speaks_unicode());
    });
  return 0;
}

}  // namespace switchyard
