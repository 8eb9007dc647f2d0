// switchyard inspect RESULTS.h5 --routing: where the tokens of a run went, a row for each layer with a mixture.
#pragma once

#include <string>
#include <vector>

#include "io/results.hpp"

namespace switchyard {

// A row of the table: means over rows of results.
struct LayerRouting {
  std::vector<double> share;  // (experts) of the layer's tokens; 0 without any
  double load_cv = 0, max_over_mean = 0, load_entropy = 0, dead = 0;
  double dropped = 0;       // of the layer's tokens
  double gate_entropy = 0;  // NaN where the router has no probabilities
};

// One for each of shape.layers.
std::vector<LayerRouting> mean_routing(const std::vector<io::RoutingRow>& rows, io::ResultsShape shape);

// At most 100 columns wide for any number of experts. blocks: the names of the layers.
std::string routing_table(const std::vector<LayerRouting>& layers, const std::vector<std::string>& blocks,
                          bool unicode);

// Prints it for a file's last rows. Fails where there are none.
int inspect_routing(const std::string& path, Index num_steps);

}  // namespace switchyard
