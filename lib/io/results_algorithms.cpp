#include <algorithm>

#include "io/results_state.hpp"

namespace switchyard::io {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kBytes = 256;  // of each

}  // namespace

ColumnLayout algorithms_layout() {
  static const auto* const type = new h5::Handle(h5::string_type(kBytes));  // HDF5 ends before static objects do
  return {{schema::kProductAlgorithms, "1"}, *type, {}};
}

void ResultsWriter::State::append_algorithms(const std::vector<std::string>& lines) {
  if (!failure.empty()) fail("{}", failure);
  std::string rows;
  Index count = 0;
  for (std::string line : lines) {
    line.resize(std::min(line.size(), kBytes));
    if (!written_algorithms.insert(line).second) continue;
    line.resize(kBytes);
    rows += line;
    ++count;
  }
  if (count == 0) return;
  reserve(bytes_at_most({algorithms->layout()}, count));
  algorithms->append(rows.data(), count);
  flush_file();
}

std::vector<std::string> read_algorithms(const h5::Handle& file, const fs::path& path) {
  const ColumnLayout layout = algorithms_layout();
  const h5::Handle dataset = h5::open_dataset(file, layout.column.path);
  h5::check_read(hid_t(dataset), path, std::string("open ") + layout.column.path);
  const std::vector<Index> extent = h5::shape_of(dataset);
  if (extent.size() != 1) fail("{}: is damaged: {} has not one dimension", path.string(), layout.column.path);
  const Index count = std::min(extent[0], static_cast<Index>(h5::most_bytes(dataset) / kBytes));
  std::string rows(static_cast<std::size_t>(count) * kBytes, '\0');
  read_rows(file, layout, 0, count, rows.data(), path);
  std::vector<std::string> algorithms;
  for (std::size_t first = 0; first < rows.size(); first += kBytes) {
    const std::string row = rows.substr(first, kBytes);
    algorithms.push_back(row.substr(0, row.find('\0')));
  }
  return algorithms;
}

std::vector<std::string> read_algorithms(const fs::path& path) {
  bool unfinished = false;
  const h5::ReadFile file = open_results(path, unfinished);
  return read_results_header(file, path).shape.has_algorithms ? read_algorithms(file, path)
                                                              : std::vector<std::string>();
}

}  // namespace switchyard::io
