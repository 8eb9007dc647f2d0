// A small file of equally long columns, written at once: what a benchmark measured.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/types.hpp"

namespace switchyard::io {

struct TableColumn {
  std::string path;  // "kernels/seconds"
  std::string units;
  std::variant<std::vector<std::string>, std::vector<double>, std::vector<Index>> values;
};

// Claims its place before the measurement and is written after it: a name that is taken, or a folder that cannot be
// written, is then met at once. Without write() it leaves nothing behind, unless the program is killed.
class TableFile {
 public:
  // Fails with kUsage where a file of this name is there and may not be replaced.
  TableFile(std::filesystem::path path, bool overwrite);
  ~TableFile();
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;

  // The attribute `config` becomes a dataset, as in results.
  void write(const std::vector<TableColumn>& columns, const std::map<std::string, std::string>& attributes);

 private:
  void remove_temporary();

  std::filesystem::path path_, temporary_;
};

}  // namespace switchyard::io
