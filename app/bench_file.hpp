// The HDF5 file of a benchmark: --output FILE.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/bench.hpp"
#include "io/schema.hpp"
#include "io/table_file.hpp"

namespace switchyard {

// Collective, as is write().
class BenchFile {
 public:
  // Fails, on every rank, where options.output cannot be written; without one it does nothing.
  BenchFile(World& world, const BenchOptions& options);
  // threads: that each rank computed with.
  void write(const std::string& benchmark, const Config& config, Index threads,
             const std::vector<io::TableColumn>& columns);

 private:
  World& world_;
  const BenchOptions& options_;
  std::optional<io::TableFile> file_;  // rank 0
};

template <typename Values>
io::TableColumn column(const io::schema::Column& column, std::vector<Values> values) {
  return {column.path, column.units, std::move(values)};
}

}  // namespace switchyard
