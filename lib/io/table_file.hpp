// A small file of equally long columns, written and described at once: what a benchmark measured.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/types.hpp"

namespace switchyard::io {

struct TableColumn {
  std::string path;  // "kernels/seconds"
  std::string units;
  std::variant<std::vector<std::string>, std::vector<double>, std::vector<Index>> values;
};

// Tried before the measurement and written after it: a name that is taken, or a folder that cannot be written, is then
// met at once. Nothing is on the disk in between, so a program that is killed leaves nothing there.
class TableFile {
 public:
  // Fails with kUsage where a file of this name is there and may not be replaced: overwrite is for files of this format
  // alone.
  TableFile(std::filesystem::path path, bool overwrite);

  // The attribute `config` becomes a dataset, as in results.
  void write(const std::vector<TableColumn>& columns, const std::map<std::string, std::string>& attributes);

 private:
  std::filesystem::path path_, temporary_;
};

// What a file holds, numbers left out.
struct TableSummary {
  std::map<std::string, std::string> attributes;       // without format and schema version
  std::vector<std::pair<std::string, Index>> columns;  // path and rows
};

// nullopt: an HDF5 file of another format. Fails where it cannot be read as HDF5.
std::optional<TableSummary> describe_table(const std::filesystem::path& path);

}  // namespace switchyard::io
