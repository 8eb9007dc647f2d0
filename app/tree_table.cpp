#include "app/tree_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "app/share_bars.hpp"

namespace switchyard {

namespace {

std::vector<double> mean_of_layer(const std::vector<io::TreeRow>& rows, std::vector<float> io::TreeRow::*column,
                                  std::size_t layer, std::size_t size) {
  std::vector<double> mean(size, 0);
  for (const io::TreeRow& row : rows)
    for (std::size_t i = 0; i < size; ++i) mean[i] += (row.*column)[layer * size + i];
  for (double& value : mean) value /= static_cast<double>(rows.size());
  return mean;
}

double entropy_of(const std::vector<double>& share) {
  double sum = 0;
  for (const double p : share)
    if (p > 0) sum -= p * std::log(p);
  return sum;
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double most_of(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

double undecided_percent(const std::vector<double>& entropy) {
  const auto undecided = std::count_if(entropy.begin(), entropy.end(), [](double nats) { return nats > kDecided; });
  return 100 * static_cast<double>(undecided) / static_cast<double>(entropy.size());
}

}  // namespace

std::vector<LayerTree> mean_trees(const std::vector<io::TreeRow>& rows, io::ResultsShape shape) {
  const auto leaves = static_cast<std::size_t>(shape.leaves);
  std::vector<LayerTree> layers;
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(shape.tree_layers); ++layer)
    layers.push_back({mean_of_layer(rows, &io::TreeRow::share, layer, leaves),
                      mean_of_layer(rows, &io::TreeRow::entropy, layer, leaves - 1)});
  return layers;
}

std::string tree_table(const std::vector<LayerTree>& layers, const std::vector<std::string>& blocks, bool unicode) {
  const std::size_t leaves = layers[0].share.size(), width = bars_width(leaves);
  std::string text = fmt::format("{:>5}  {:<{}}  {:>8}  {:>10}  {:>17}  {:>11}\n", "", "", width, "", "entropy of",
                                 "nodes' entropy", "nodes above") +
                     fmt::format("{:>5}  {:<{}}  {:>8}  {:>10}  {:>8}  {:>7}  {:>9.2f} %\n", "layer",
                                 bars_heading(leaves, "leaf"), width, "max/mean", "shares", "mean", "most", kDecided);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerTree& of = layers[layer];
    const std::vector<std::string> lines = bar_lines(of.share, unicode);
    text += fmt::format("{:>5}  {}  {:>8.2f}  {:>10.2f}  {:>8.3f}  {:>7.3f}  {:>11.1f}\n", blocks[layer], lines[0],
                        static_cast<double>(leaves) * most_of(of.share), entropy_of(of.share), mean_of(of.entropy),
                        most_of(of.entropy), undecided_percent(of.entropy));
    for (std::size_t line = 1; line < lines.size(); ++line)
      text += fmt::format("{:>5}  {}\n", "", lines[line].substr(0, lines[line].find_last_not_of(' ') + 1));
  }
  return text + fmt::format("\n{}\nentropy in nats: of shares {:.2f} where even, of a node's choice at most {:.2f}\n",
                            bars_legend(leaves, "leaves", unicode), std::log(static_cast<double>(leaves)),
                            std::log(2.0));
}

}  // namespace switchyard
