#include <algorithm>
#include <new>

#include "io/results_file.hpp"

namespace switchyard::io {

namespace fs = std::filesystem;

namespace {

// Of a table of numbers, without the columns that came after the file's version.
struct RowReader {
  const h5::Handle& file;
  const fs::path& path;
  const TableLayout& layout;
  Index version;

  template <typename Row, std::size_t kNumColumns>
  Row row(Index place, const std::array<schema::Column, kNumColumns>& columns,
          const std::array<double Row::*, kNumColumns>& members) const {
    Row row;
    read_rows(file, layout[0], place, 1, &row.step, path);
    std::size_t next = 1;
    for (std::size_t c = 0; c < kNumColumns; ++c)
      if (columns[c].since <= version) read_rows(file, layout[next++], place, 1, &(row.*members[c]), path);
    return row;
  }
};

// Rows of a table of arrays, whose columns after `step` are `members`.
template <typename Row, std::size_t kNumColumns>
std::vector<Row> read_arrays(const h5::Handle& file, const fs::path& path, const TableLayout& table,
                             const std::array<std::vector<float> Row::*, kNumColumns>& members, const RowRange& range) {
  const std::vector<Index> steps = read_steps(file, table, num_whole_rows(file, table, path), path);
  const auto end = std::upper_bound(steps.begin(), steps.end(), range.last_step);
  const auto begin = std::lower_bound(steps.begin(), end, range.first_step);
  const Index count = std::min<Index>(end - begin, range.most), first = end - steps.begin() - count;

  std::vector<Row> rows(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) rows[static_cast<std::size_t>(i)].step = steps[static_cast<std::size_t>(first + i)];
  for (std::size_t c = 0; c < kNumColumns; ++c) {
    const ColumnLayout& column = table[c + 1];
    const Index row_elements = column.row_elements();
    std::vector<float> values(static_cast<std::size_t>(count * row_elements));
    read_rows(file, column, first, count, values.data(), path);
    for (Index i = 0; i < count; ++i)
      (rows[static_cast<std::size_t>(i)].*members[c])
          .assign(values.begin() + i * row_elements, values.begin() + (i + 1) * row_elements);
  }
  return rows;
}

}  // namespace

ResultsSummary describe_results(const fs::path& path) {
  ResultsSummary summary;
  try {
    const h5::ReadFile file = open_results(path, summary.unfinished);
    summary.is_results = h5::read_text(file, schema::kFormat, path) == schema::kResultsFormat;
    ResultsHeader header = read_results_header(file, path);
    summary.schema_version = header.schema_version;
    summary.attributes = std::move(header.attributes);
    summary.shape = header.shape;

    const TableLayout steps = steps_layout(header.schema_version);
    summary.num_steps = num_whole_rows(file, steps, path);
    if (summary.num_steps > 0) {
      const RowReader reader{file, path, steps, header.schema_version};
      summary.last_step = reader.row<StepRow>(summary.num_steps - 1, schema::kStepsColumns, kStepsMembers);
    }
    const TableLayout evaluations = evaluations_layout(header.schema_version);
    const RowReader reader{file, path, evaluations, header.schema_version};
    const Index num_evaluations = num_whole_rows(file, evaluations, path);
    for (Index i = 0; i < num_evaluations; ++i)
      summary.evaluations.push_back(reader.row<EvaluationRow>(i, schema::kEvaluationsColumns, kEvaluationsMembers));
    // These fail where damaged.
    if (header.shape.layers > 0 && header.schema_version >= schema::kRoutingVersion)
      num_whole_rows(file, routing_layout(header.shape), path);
    if (header.shape.tree_layers > 0) num_whole_rows(file, trees_layout(header.shape), path);
    summary.readable = true;
  } catch (const std::bad_alloc&) {  // no fault of the file
    fail("{}: there is not enough memory to read it: use a machine with more", path.string());
  } catch (const std::exception& error) {
    summary.problem = error.what();
  }
  return summary;
}

std::vector<RoutingRow> read_routing(const fs::path& path, const RowRange& range) {
  bool unfinished = false;
  const h5::ReadFile file = open_results(path, unfinished);
  const ResultsHeader header = read_results_header(file, path);
  if (header.shape.layers == 0) return {};
  if (header.schema_version < schema::kRoutingVersion)
    fail("{}: written by an older program (schema version {}), which did not record all of routing: read it with that",
         path.string(), header.schema_version);
  return read_arrays(file, path, routing_layout(header.shape), kRoutingMembers, range);
}

std::vector<TreeRow> read_trees(const fs::path& path, const RowRange& range) {
  bool unfinished = false;
  const h5::ReadFile file = open_results(path, unfinished);
  const ResultsHeader header = read_results_header(file, path);
  if (header.shape.tree_layers == 0) return {};
  return read_arrays(file, path, trees_layout(header.shape), kTreesMembers, range);
}

}  // namespace switchyard::io
