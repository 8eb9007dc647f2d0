// A results file while it is written: its tables, the rows that wait, and the room on the disk.
#pragma once

#include <chrono>
#include <optional>
#include <set>

#include "core/error.hpp"
#include "io/growing_column.hpp"
#include "io/results_file.hpp"

namespace switchyard::io {

// Where reading a run's earlier results fails: how to go on without them.
template <typename Read>
auto read_earlier(Index step, const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    fail("{}; move it away to resume without its rows: new ones start after step {}", error.what(), step);
  }
}

struct ResultsTable {
  TableLayout layout;                  // empty: the file has no such table
  std::vector<GrowingColumn> columns;  // the first is `step`
  Index last_step = 0;                 // of its rows, those that wait included
};

template <typename Row>
struct TableOf : ResultsTable {
  std::vector<Row> pending;  // rows that are not in the file yet

  Index bytes_pending() const { return bytes_at_most(layout, static_cast<Index>(pending.size())); }
};

struct ResultsWriter::State {
  std::filesystem::path path;       // where the file is, or is to be
  std::filesystem::path disk_path;  // where it is now
  ResultsShape shape;
  h5::Handle file;
  TableOf<StepRow> steps;
  TableOf<EvaluationRow> evaluations;
  TableOf<RoutingRow> routing;
  TableOf<TreeRow> trees;
  std::optional<GrowingColumn> algorithms;  // with has_algorithms
  std::set<std::string> written_algorithms;
  std::chrono::steady_clock::time_point last_flush = std::chrono::steady_clock::now();
  std::string failure;  // HDF5 failed half way: nothing more can be written
  std::vector<std::string> warnings;

  State(const std::filesystem::path& path, const Attributes& attributes, ResultsShape shape);
  void create_datasets(const Attributes& attributes);
  // Rows up to a step, algorithms, and all that an earlier file holds beside.
  void copy_earlier(const h5::Handle& old, Index last_step, Index last_evaluation);
  void append_algorithms(const std::vector<std::string>& lines);
  void publish();
  void flush();
  bool is_due() const;  // rows have waited for long enough, or are many
  bool is_in_place() const;
  void reserve(Index bytes);
  void close();

 private:
  std::vector<ResultsTable*> tables();
  void copy_rows(const h5::Handle& old, Index last_step, Index last_evaluation);
  bool has_pending() const;
  void flush_file();
};

}  // namespace switchyard::io
