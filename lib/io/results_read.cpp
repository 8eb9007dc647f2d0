#include <algorithm>

#include "io/results_file.hpp"

namespace switchyard::io {

namespace fs = std::filesystem;

ResultsSummary describe_results(const fs::path& path) {
  ResultsSummary summary;
  try {
    const h5::Handle file = open_results(path, summary.unfinished);
    summary.is_results = h5::read_text(file, schema::kFormat, path) == schema::kResultsFormat;
    ResultsHeader header = read_results_header(file, path);
    summary.schema_version = header.schema_version;
    summary.attributes = std::move(header.attributes);
    summary.shape = header.shape;

    const TableLayout steps = steps_layout(header.schema_version);
    summary.num_steps = num_whole_rows(file, steps, path);
    if (summary.num_steps > 0) {
      const Index last = summary.num_steps - 1;
      StepRow& row = summary.last_step.emplace();
      read_rows(file, steps[0], last, 1, &row.step, path);
      std::size_t next = 1;
      for (std::size_t c = 0; c < kStepsMembers.size(); ++c)
        if (schema::kStepsColumns[c].since <= header.schema_version)
          read_rows(file, steps[next++], last, 1, &(row.*kStepsMembers[c]), path);
    }

    const TableLayout evaluations = evaluations_layout();
    const Index num_evaluations = num_whole_rows(file, evaluations, path);
    summary.evaluations.resize(static_cast<std::size_t>(num_evaluations));
    for (Index i = 0; i < num_evaluations; ++i) {
      EvaluationRow& row = summary.evaluations[static_cast<std::size_t>(i)];
      read_rows(file, evaluations[0], i, 1, &row.step, path);
      for (std::size_t c = 0; c < kEvaluationsMembers.size(); ++c)
        read_rows(file, evaluations[c + 1], i, 1, &(row.*kEvaluationsMembers[c]), path);
    }
    if (header.shape.layers > 0 && header.schema_version == schema::kResultsVersion)
      num_whole_rows(file, routing_layout(header.shape), path);  // fails where damaged
    summary.readable = true;
  } catch (const std::exception& error) {
    summary.problem = error.what();
  }
  return summary;
}

std::vector<RoutingRow> read_routing(const fs::path& path, const RowRange& range) {
  bool unfinished = false;
  const h5::Handle file = open_results(path, unfinished);
  const ResultsHeader header = read_results_header(file, path);
  if (header.shape.layers == 0) return {};
  if (header.schema_version < schema::kResultsVersion)
    fail("{}: written by an older program (schema version {}), which did not record all of routing: read it with that",
         path.string(), header.schema_version);
  const TableLayout table = routing_layout(header.shape);
  const std::vector<Index> steps = read_steps(file, table, num_whole_rows(file, table, path), path);
  const auto end = std::upper_bound(steps.begin(), steps.end(), range.last_step);
  const auto begin = std::lower_bound(steps.begin(), end, range.first_step);
  const Index count = std::min<Index>(end - begin, range.most), first = end - steps.begin() - count;

  std::vector<RoutingRow> rows(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) rows[static_cast<std::size_t>(i)].step = steps[static_cast<std::size_t>(first + i)];
  for (std::size_t c = 0; c < kRoutingMembers.size(); ++c) {
    const ColumnLayout& column = table[c + 1];
    const Index row_elements = column.row_elements();
    std::vector<float> values(static_cast<std::size_t>(count * row_elements));
    read_rows(file, column, first, count, values.data(), path);
    for (Index i = 0; i < count; ++i)
      (rows[static_cast<std::size_t>(i)].*kRoutingMembers[c])
          .assign(values.begin() + i * row_elements, values.begin() + (i + 1) * row_elements);
  }
  return rows;
}

}  // namespace switchyard::io
