// switchyard inspect RESULTS.h5 --routing of a run with trees: where tokens went, a row for each layer with a tree.
#pragma once

#include <string>
#include <vector>

#include "io/results.hpp"

namespace switchyard {

// Below so many nats a node's choice may be rounded at little cost (Belcak & Wattenhofer, 2308.14711).
inline constexpr double kDecided = 0.10;

// A row of the table: means over rows of results.
struct LayerTree {
  std::vector<double> share;    // (leaves) in tokens' outputs
  std::vector<double> entropy;  // (nodes), nats
};

// One for each of shape.tree_layers.
std::vector<LayerTree> mean_trees(const std::vector<io::TreeRow>& rows, io::ResultsShape shape);

// At most 100 columns wide for any number of leaves. blocks: the names of the layers.
std::string tree_table(const std::vector<LayerTree>& layers, const std::vector<std::string>& blocks, bool unicode);

}  // namespace switchyard
