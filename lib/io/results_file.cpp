#include <algorithm>

#include "core/files.hpp"
#include "io/results_file.hpp"

namespace switchyard::io {

namespace fs = std::filesystem;

Index ColumnLayout::row_elements() const {
  Index elements = 1;
  for (const Index extent : row_shape) elements *= extent;
  return elements;
}

Index ColumnLayout::row_bytes() const { return row_elements() * static_cast<Index>(H5Tget_size(type)); }

namespace {

template <std::size_t kNumColumns>
TableLayout numbers_layout(const char* step, const std::array<schema::Column, kNumColumns>& columns, Index version) {
  TableLayout table = {{{step, schema::kStepUnits}, H5T_NATIVE_INT64, {}}};
  for (const schema::Column& column : columns)
    if (column.since <= version) table.push_back({column, H5T_NATIVE_DOUBLE, {}});
  return table;
}

// Of a dataset of three dimensions, the last two; nothing where there is no such dataset.
std::vector<Index> row_shape(const h5::Handle& file, const char* name, const fs::path& path) {
  const h5::Handle dataset = h5::open_dataset(file, name);
  if (!dataset.is_open()) return {};
  const std::vector<Index> extent = h5::shape_of(dataset);
  if (extent.size() != 3) fail("{}: is damaged: {} has not three dimensions", path.string(), name);
  constexpr double kLargestChunk = 4294967295.0;  // bytes: HDF5's limit, and a row is part of one chunk
  if (extent[1] < 1 || extent[2] < 1 ||
      static_cast<double>(extent[1]) * static_cast<double>(extent[2]) * sizeof(float) > kLargestChunk)
    fail("{}: is damaged: {} claims rows of {} x {}", path.string(), name, extent[1], extent[2]);
  return {extent[1], extent[2]};
}

}  // namespace

TableLayout steps_layout(Index version) { return numbers_layout(schema::kStepsStep, schema::kStepsColumns, version); }

TableLayout evaluations_layout(Index version) {
  return numbers_layout(schema::kEvaluationsStep, schema::kEvaluationsColumns, version);
}

TableLayout routing_layout(ResultsShape shape) {
  TableLayout table = {{{schema::kRoutingStep, schema::kStepUnits}, H5T_NATIVE_INT64, {}}};
  for (const schema::Column& column : schema::kRoutingExpertColumns)
    table.push_back({column, H5T_NATIVE_FLOAT, {shape.layers, shape.experts}});
  for (const schema::Column& column : schema::kRoutingLayerColumns)
    table.push_back({column, H5T_NATIVE_FLOAT, {shape.layers}});
  return table;
}

TableLayout trees_layout(ResultsShape shape) {
  return {{{schema::kTreesStep, schema::kStepUnits}, H5T_NATIVE_INT64, {}},
          {schema::kTreesEntropy, H5T_NATIVE_FLOAT, {shape.tree_layers, shape.leaves - 1}},
          {schema::kTreesShare, H5T_NATIVE_FLOAT, {shape.tree_layers, shape.leaves}}};
}

h5::ReadFile open_results(const fs::path& path, bool& unfinished) {
  h5::silence();
  require_file(path);
  const h5::Handle access = h5::file_access(H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
  unfinished = false;
  h5::ReadFile file(path);
  if (file.open(H5F_ACC_RDONLY, access)) return file;
  const std::string reason = h5::last_message();
  unfinished = true;
  // While a writer is at it a checksum may not fit yet, and HDF5 reads again, each time after twice the pause. Its own
  // 100 attempts would never end on a damaged file; these end within a tenth of a second.
  constexpr unsigned kReadAttempts = 25;
  H5Pset_metadata_read_attempts(access, kReadAttempts);
  if (file.open(H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, access)) return file;
  // Another program wrote to it and was killed; its mark "open for writing" is overlooked, as h5clear does.
  const hbool_t overlook = true;
  H5Pset(access, "clear_status_flags", &overlook);
  if (file.open(H5F_ACC_RDONLY, access)) return file;
  if (H5Fis_hdf5(path.c_str()) <= 0)
    fail("{}: is not an HDF5 file, or its first bytes are damaged ({})", path.string(), reason);
  fail("{}: is damaged or cut short: {}", path.string(), reason);
}

ResultsHeader read_results_header(const h5::Handle& file, const fs::path& path) {
  const auto format = h5::read_text(file, schema::kFormat, path);
  if (format == schema::kCheckpointFormat) fail("{}: is a checkpoint, not a results file", path.string());
  if (format == schema::kBenchFormat) fail("{}: holds a benchmark, not results of a run", path.string());
  if (format != schema::kResultsFormat)
    fail("{}: is damaged, or an HDF5 file but no results of this program: its attribute format {}", path.string(),
         format ? "is not that of results" : "is missing");
  ResultsHeader header;
  header.schema_version = h5::read_integer(file, schema::kSchemaVersion).value_or(0);
  if (header.schema_version < 1)
    fail("{}: is damaged: its attribute {} is missing", path.string(), schema::kSchemaVersion);
  if (header.schema_version > schema::kResultsVersion)
    fail("{}: written by a newer program (schema version {}, this one reads up to {}): use that program", path.string(),
         header.schema_version, schema::kResultsVersion);
  for (const std::string& name : h5::attribute_names(file))
    if (name != schema::kFormat && name != schema::kSchemaVersion)
      if (const auto text = h5::read_text(file, name.c_str())) header.attributes[name] = *text;
  if (const auto config = h5::read_text_dataset(file, schema::kConfig)) header.attributes[schema::kConfig] = *config;
  if (const auto load = row_shape(file, schema::kRoutingExpertColumns[0].path, path); !load.empty())
    header.shape.layers = load[0], header.shape.experts = load[1];
  header.shape.has_algorithms = H5Lexists(file, schema::kProductAlgorithms, H5P_DEFAULT) > 0;
  if (const auto share = row_shape(file, schema::kTreesShare.path, path); !share.empty())
    header.shape.tree_layers = share[0], header.shape.leaves = share[1];
  return header;
}

Index num_whole_rows(const h5::Handle& file, const TableLayout& table, const fs::path& path) {
  Index count = 0;
  for (std::size_t c = 0; c < table.size(); ++c) {
    const h5::Handle dataset = h5::open_dataset(file, table[c].column.path);
    h5::check_read(hid_t(dataset), path, std::string("open ") + table[c].column.path);
    const std::vector<Index> extent = h5::shape_of(dataset);
    if (extent.size() != table[c].row_shape.size() + 1 ||
        !std::equal(table[c].row_shape.begin(), table[c].row_shape.end(), extent.begin() + 1))
      fail("{}: is damaged: {} has another shape than the rest", path.string(), table[c].column.path);
    const double row_bytes = static_cast<double>(std::max<Index>(1, table[c].row_bytes()));
    const auto stored = static_cast<Index>(h5::most_bytes(dataset) / row_bytes);
    count = std::min({c == 0 ? extent[0] : count, extent[0], stored});
  }
  // A row that a killed writer did not finish may read as zeros.
  const std::vector<Index> steps = read_steps(file, table, count, path);
  const auto unordered = std::adjacent_find(steps.begin(), steps.end(), [](Index a, Index b) { return b <= a; });
  return unordered == steps.end() ? count : unordered - steps.begin() + 1;
}

std::vector<Index> read_steps(const h5::Handle& file, const TableLayout& table, Index count, const fs::path& path) {
  std::vector<Index> steps(static_cast<std::size_t>(count));
  read_rows(file, table[0], 0, count, steps.data(), path);
  return steps;
}

void read_rows(const h5::Handle& file, const ColumnLayout& column, Index first, Index count, void* rows,
               const fs::path& path) {
  if (count == 0) return;
  const h5::Handle dataset = h5::open_dataset(file, column.column.path);
  h5::check_read(hid_t(dataset), path, std::string("open ") + column.column.path);
  const RowsInDataset selection(dataset, column, first, count);
  h5::check_read(H5Dread(dataset, column.type, selection.memory, selection.file, H5P_DEFAULT, rows), path,
                 std::string("read ") + column.column.path);
}

RowsInDataset::RowsInDataset(hid_t dataset, const ColumnLayout& column, Index first, Index count) {
  std::vector<hsize_t> extent = {static_cast<hsize_t>(count)}, start = {static_cast<hsize_t>(first)};
  extent.insert(extent.end(), column.row_shape.begin(), column.row_shape.end());
  start.resize(extent.size());
  file = h5::Handle(H5Dget_space(dataset), H5Sclose);
  H5Sselect_hyperslab(file, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
  memory = h5::Handle(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
}

}  // namespace switchyard::io
