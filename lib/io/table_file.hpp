// A small file of columns, written and described at once: what a benchmark measured, or a study came to.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/types.hpp"
#include "io/schema.hpp"

namespace switchyard::io {

struct TableColumn {
  std::string path;  // "kernels/seconds"
  std::string units;
  std::variant<std::vector<std::string>, std::vector<double>, std::vector<Index>> values;
};

struct TableFormat {
  const char* name;  // the attribute format
  Index version;
  const char* writer;  // who may replace such a file, for messages
};
inline constexpr TableFormat kBenchTable = {schema::kBenchFormat, schema::kBenchVersion, "bench"};
inline constexpr TableFormat kStudyTable = {schema::kStudyFormat, schema::kStudyVersion, "study collect"};

// An external link to the root of another HDF5 file.
struct TableLink {
  std::string path;              // "runs/NAME"
  std::filesystem::path target;  // relative to the file's folder
};

// Tried before the measurement and written after it: a name that is taken, or a folder that cannot be written, is then
// met at once. Nothing is on the disk in between, so a program that is killed leaves nothing there.
class TableFile {
 public:
  // Fails with kUsage where a file of this name is there and may not be replaced: overwrite is for files of this format
  // alone.
  TableFile(std::filesystem::path path, bool overwrite, TableFormat format = kBenchTable);

  // The attribute `config` becomes a dataset, as in results.
  void write(const std::vector<TableColumn>& columns, const std::map<std::string, std::string>& attributes,
             const std::vector<TableLink>& links = {});

 private:
  TableFormat format_;
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
