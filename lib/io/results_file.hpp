// What writing and reading results share: the tables of a file, and reading their rows.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/h5.hpp"
#include "io/results.hpp"
#include "io/schema.hpp"

namespace switchyard::io {

// In the order of the schema's columns.
inline constexpr std::array<double StepRow::*, schema::kStepsColumns.size()> kStepsMembers = {
    &StepRow::epoch,
    &StepRow::loss,
    &StepRow::balance_loss,
    &StepRow::z_loss,
    &StepRow::importance_loss,
    &StepRow::load_loss,
    &StepRow::consistency_loss,
    &StepRow::hardening_loss,
    &StepRow::accuracy,
    &StepRow::learning_rate,
    &StepRow::gradient_norm,
    &StepRow::samples_per_second,
    &StepRow::seconds,
    &StepRow::seconds_compute,
    &StepRow::seconds_exchange,
    &StepRow::seconds_reduce,
    &StepRow::seconds_wait};
inline constexpr std::array<double EvaluationRow::*, schema::kEvaluationsColumns.size()> kEvaluationsMembers = {
    &EvaluationRow::epoch,
    &EvaluationRow::loss,
    &EvaluationRow::accuracy,
    &EvaluationRow::validation_loss,
    &EvaluationRow::validation_accuracy,
    &EvaluationRow::training_loss,
    &EvaluationRow::training_accuracy,
    &EvaluationRow::seconds};
// (layers, experts), then (layers).
inline constexpr std::array<std::vector<float> RoutingRow::*,
                            schema::kRoutingExpertColumns.size() + schema::kRoutingLayerColumns.size()>
    kRoutingMembers = {&RoutingRow::load,         &RoutingRow::dropped,       &RoutingRow::weight,
                       &RoutingRow::load_cv,      &RoutingRow::max_over_mean, &RoutingRow::load_entropy,
                       &RoutingRow::gate_entropy, &RoutingRow::dead_experts};

inline constexpr std::array<std::vector<float> TreeRow::*, 2> kTreesMembers = {&TreeRow::entropy, &TreeRow::share};

// A dataset that grows by rows.
struct ColumnLayout {
  schema::Column column;
  hid_t type;                    // in memory and, this machine being little endian, in the file
  std::vector<Index> row_shape;  // of one row; empty: a number
  Index row_elements() const;
  Index row_bytes() const;
};

// Columns that grow together; the first is `step`.
using TableLayout = std::vector<ColumnLayout>;
TableLayout steps_layout(Index version = schema::kResultsVersion);
TableLayout evaluations_layout(Index version = schema::kResultsVersion);
TableLayout routing_layout(ResultsShape shape);  // of kRoutingVersion and later
TableLayout trees_layout(ResultsShape shape);

// Each a string of fixed length; what is longer is cut.
ColumnLayout algorithms_layout();
std::vector<std::string> read_algorithms(const h5::Handle& file, const std::filesystem::path& path);

// Opens a file for reading, one that is being written or whose writer was killed included.
h5::ReadFile open_results(const std::filesystem::path& path, bool& unfinished);

struct ResultsHeader {
  Index schema_version = 0;
  std::map<std::string, std::string> attributes;  // with `config`
  ResultsShape shape;
};

// Fails where it is not a results file, or from a newer program. Of an older one, routing differs and columns are
// missing.
ResultsHeader read_results_header(const h5::Handle& file, const std::filesystem::path& path);

// Whole rows in a table: as many as every column has, as long as steps go up.
Index num_whole_rows(const h5::Handle& file, const TableLayout& table, const std::filesystem::path& path);

// Rows [first, first + count) of a column, as bytes of its type.
void read_rows(const h5::Handle& file, const ColumnLayout& column, Index first, Index count, void* rows,
               const std::filesystem::path& path);

std::vector<Index> read_steps(const h5::Handle& file, const TableLayout& table, Index count,
                              const std::filesystem::path& path);

// The selection of such rows in a dataset, and as they lie in memory.
struct RowsInDataset {
  h5::Handle memory, file;
  RowsInDataset(hid_t dataset, const ColumnLayout& column, Index first, Index count);
};

}  // namespace switchyard::io
