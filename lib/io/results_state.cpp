#include "io/results_state.hpp"

#include <algorithm>

#include "io/disk.hpp"
#include "io/h5_copy.hpp"

namespace switchyard::io {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kFlushInterval = std::chrono::seconds(1);
constexpr std::size_t kMaxPending = 4096;       // rows
constexpr std::size_t kAttributeCapacity = 64;  // bytes that set_attribute may always write
constexpr hsize_t kAlignment = 1024;            // bytes: a divisor of a page, and longer than what a flush writes again
constexpr Index kCopyBytes = Index{4} << 20;    // rows copied at a time

template <typename Row, std::size_t kNumColumns>
void write_numbers(TableOf<Row>& table, const std::array<double Row::*, kNumColumns>& members) {
  if (table.pending.empty()) return;
  for (std::size_t c = 0; c < kNumColumns; ++c) {
    std::vector<double> values;
    for (const Row& row : table.pending) values.push_back(row.*members[c]);
    table.columns[c + 1].append(values.data(), std::ssize(values));
  }
}

template <typename Row, std::size_t kNumColumns>
void write_arrays(TableOf<Row>& table, const std::array<std::vector<float> Row::*, kNumColumns>& members) {
  if (table.pending.empty()) return;
  for (std::size_t c = 0; c < kNumColumns; ++c) {
    std::vector<float> values;
    for (const Row& row : table.pending)
      values.insert(values.end(), (row.*members[c]).begin(), (row.*members[c]).end());
    table.columns[c + 1].append(values.data(), std::ssize(table.pending));
  }
}

template <typename Row>
void write_steps(TableOf<Row>& table) {
  if (table.pending.empty()) return;
  std::vector<Index> values;
  for (const Row& row : table.pending) values.push_back(row.step);
  table.columns[0].append(values.data(), std::ssize(values));
}

}  // namespace

ResultsWriter::State::State(const fs::path& final_path, const Attributes& attributes, ResultsShape results_shape)
    : path(final_path), disk_path(temporary_path(final_path)), shape(results_shape) {
  h5::silence();
  Index bytes = 4 * kMetadataBytes;
  for (const auto& [name, value] : attributes) bytes += 2 * static_cast<Index>(name.size() + value.size()) + 256;
  create_with_space(disk_path, bytes, true);
  const h5::Handle access = h5::file_access(H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  H5Pset_alignment(access, 0, kAlignment);
  file = h5::Handle(H5Fcreate(disk_path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose);
  h5::check(hid_t(file), disk_path, "create the file");
  reserve(bytes);
}

// Everything that cannot be made once others may read: groups, datasets, attributes.
void ResultsWriter::State::create_datasets(const Attributes& attributes) {
  h5::write_attribute(file, schema::kFormat, schema::kResultsFormat, path);
  h5::write_attribute(file, schema::kSchemaVersion, schema::kResultsVersion, path);
  for (const auto& [name, value] : attributes)
    if (name != schema::kConfig) h5::write_attribute(file, name, value, path, kAttributeCapacity);
  if (const auto config = attributes.find(schema::kConfig); config != attributes.end())
    h5::write_text_dataset(file, schema::kConfig, config->second, path);
  steps.layout = steps_layout();
  evaluations.layout = evaluations_layout();
  if (shape.layers > 0) routing.layout = routing_layout(shape);
  if (shape.tree_layers > 0) trees.layout = trees_layout(shape);
  for (ResultsTable* table : tables())
    for (const ColumnLayout& layout : table->layout) table->columns.emplace_back(file, layout, path);
  if (shape.has_algorithms) algorithms.emplace(file, algorithms_layout(), path);
}

std::vector<ResultsTable*> ResultsWriter::State::tables() { return {&steps, &evaluations, &routing, &trees}; }

void ResultsWriter::State::copy_earlier(const h5::Handle& old, Index last_step, Index last_evaluation) {
  copy_rows(old, last_step, last_evaluation);
  if (H5Lexists(old, schema::kProductAlgorithms, H5P_DEFAULT) > 0)
    append_algorithms(read_earlier(last_step, [&] { return read_algorithms(old, path); }));
  const std::vector<std::string> left_behind =
      read_earlier(last_step, [&] { return h5::copy_missing(old, file, path, [&](Index bytes) { reserve(bytes); }); });
  for (const std::string& each : left_behind)
    warnings.push_back(
        fmt::format("{}: {} does not go along, since HDF5 cannot copy it to another file", path.string(), each));
}

void ResultsWriter::State::copy_rows(const h5::Handle& old, Index last_step, Index last_evaluation) {
  for (ResultsTable* table : tables()) {
    if (table->layout.empty()) continue;
    const std::vector<Index> old_steps = read_earlier(
        last_step, [&] { return read_steps(old, table->layout, num_whole_rows(old, table->layout, path), path); });
    const Index last = table == &evaluations ? last_evaluation : last_step;
    const Index count = std::upper_bound(old_steps.begin(), old_steps.end(), last) - old_steps.begin();
    if (count > 0) table->last_step = old_steps[static_cast<std::size_t>(count - 1)];
    reserve(bytes_at_most(table->layout, count));
    for (GrowingColumn& column : table->columns) {
      const Index row_bytes = column.layout().row_bytes(), block_rows = std::max<Index>(1, kCopyBytes / row_bytes);
      std::vector<char> rows(static_cast<std::size_t>(std::min(block_rows, count) * row_bytes));
      for (Index first = 0; first < count; first += block_rows) {
        const Index num_rows = std::min(block_rows, count - first);
        read_earlier(last_step, [&] { read_rows(old, column.layout(), first, num_rows, rows.data(), path); });
        column.append(rows.data(), num_rows);
      }
    }
  }
}

void ResultsWriter::State::publish() {
  flush_file();
  h5::check(H5Fstart_swmr_write(file), disk_path, "let others read the file");
  sync_file(disk_path);
  rename_file(disk_path, path);
  disk_path = path;
}

bool ResultsWriter::State::is_due() const {
  return Clock::now() - last_flush >= kFlushInterval || steps.pending.size() >= kMaxPending ||
         routing.pending.size() >= kMaxPending || trees.pending.size() >= kMaxPending;
}

bool ResultsWriter::State::is_in_place() const { return is_at(h5::descriptor_of(file), disk_path); }

void ResultsWriter::State::flush() {
  if (!failure.empty()) fail("{}", failure);
  if (!file.is_open()) fail("{}: is closed, no rows can be added", path.string());
  last_flush = Clock::now();
  if (!has_pending()) return flush_file();
  reserve(steps.bytes_pending() + evaluations.bytes_pending() + routing.bytes_pending() + trees.bytes_pending());
  try {
    write_numbers(steps, kStepsMembers);
    write_numbers(evaluations, kEvaluationsMembers);
    write_arrays(routing, kRoutingMembers);
    write_arrays(trees, kTreesMembers);
    flush_file();
    // Last, so that a reader who goes by the length of `step` finds every other column at least as long.
    write_steps(steps);
    write_steps(evaluations);
    write_steps(routing);
    write_steps(trees);
    flush_file();
  } catch (const std::exception& error) {
    failure = error.what();
    throw;
  }
  steps.pending.clear();
  evaluations.pending.clear();
  routing.pending.clear();
  trees.pending.clear();
}

bool ResultsWriter::State::has_pending() const {
  return !(steps.pending.empty() && evaluations.pending.empty() && routing.pending.empty() && trees.pending.empty());
}

// Room for so much more.
void ResultsWriter::State::reserve(Index bytes) {
  hsize_t size = 0;
  h5::check(H5Fget_filesize(file, &size), path, "find the file's length");
  const Index end = static_cast<Index>(size);
  reserve_space(h5::descriptor_of(file), disk_path, end, end + bytes, true);
}

void ResultsWriter::State::flush_file() { h5::check(H5Fflush(file, H5F_SCOPE_LOCAL), disk_path, "write to disk"); }

void ResultsWriter::State::close() {
  if (!failure.empty()) h5::abandon(file);
  for (ResultsTable* table : tables()) table->columns.clear();
  algorithms.reset();
  if (!failure.empty()) return;
  const bool in_place = is_in_place();
  h5::check(file.close(), disk_path, "close the file");
  if (in_place) release_reserved(disk_path);
}

}  // namespace switchyard::io
