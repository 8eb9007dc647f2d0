// A run's results: one HDF5 file that grows while the run goes on and that others read meanwhile (HDF5 SWMR). Paths,
// shapes and units: schema.hpp.
#pragma once

#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/types.hpp"

namespace switchyard::io {

// A results file has this name until it is ready for rows.
inline std::filesystem::path temporary_path(const std::filesystem::path& path) { return path.string() + ".tmp"; }

// Of routing/* and trees/*. No layers: no mixture or tree, and no such datasets.
struct ResultsShape {
  Index layers = 0, experts = 0;
  Index tree_layers = 0, leaves = 0;
  bool has_algorithms = false;  // product_algorithms
  bool operator==(const ResultsShape&) const = default;
};

// Units of the fields: schema.hpp.
struct StepRow {
  Index step = 0;
  double epoch = 0, loss = 0, balance_loss = 0, z_loss = 0, importance_loss = 0, load_loss = 0, consistency_loss = 0,
         hardening_loss = 0, accuracy = 0, learning_rate = 0, gradient_norm = 0;
  double samples_per_second = 0, seconds = 0, seconds_compute = 0, seconds_exchange = 0, seconds_reduce = 0,
         seconds_wait = 0;
};

struct RoutingRow {
  Index step = 0;
  std::vector<float> load, dropped, weight;                                             // (layers, experts)
  std::vector<float> load_cv, max_over_mean, load_entropy, gate_entropy, dead_experts;  // (layers)
};

// Nodes by level, from left to right: leaves - 1 of them.
struct TreeRow {
  Index step = 0;
  std::vector<float> entropy;  // (layers, nodes)
  std::vector<float> share;    // (layers, leaves)
};

inline constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

struct EvaluationRow {
  Index step = 0;
  double epoch = 0, loss = 0, accuracy = 0;
  double validation_loss = kNotMeasured, validation_accuracy = kNotMeasured;
  double training_loss = kNotMeasured, training_accuracy = kNotMeasured;
  double seconds = 0;
};

// The only writer of a file, on one rank. Rows are kept in memory for about a second and written together, so a row
// costs well under a microsecond on most steps.
//
// Room on the disk is reserved before each write: a full disk is an Error, after which everything written before is
// still there and readable, and the rows that did not fit are kept for another try. A process that is killed leaves a
// file that can be read, and gone on with by reopen(). A file that somebody removes meanwhile is written anew with all
// that it held; where another one has taken its place, that stays, and writing fails.
class ResultsWriter {
 public:
  using Attributes = std::map<std::string, std::string>;

  // Replaces PATH once the new file is ready for rows. `attributes` become root attributes, `config` a dataset.
  static ResultsWriter create(const std::filesystem::path& path, const Attributes& attributes, ResultsShape shape);

  // Goes on with a file that was closed, or whose writer was killed: rows of steps after `step` are left out, and,
  // unless `evaluated`, the row of an evaluation after `step`, which is made again; `attributes` are added to its own
  // or put in their place; has_algorithms holds from then on if it did before. All else that the file holds, whoever
  // wrote it, stays. The file is written anew beside the old one and takes its name when it is ready. Fails, with the
  // old file as it was, where that cannot be read or has another shape.
  static ResultsWriter reopen(const std::filesystem::path& path, Index step, const Attributes& attributes,
                              ResultsShape shape, bool evaluated = true);

  ResultsWriter(ResultsWriter&&) noexcept;
  ResultsWriter& operator=(ResultsWriter&&) noexcept;
  ~ResultsWriter();  // as close(), but silent where that fails

  void append(const StepRow& row);
  void append(const RoutingRow& row);  // only with layers > 0
  void append(const TreeRow& row);     // only with tree_layers > 0
  void append(const EvaluationRow& row);

  // Of the last row of a step, and of an evaluation; 0 where there is none.
  Index last_step() const;
  Index last_evaluation() const;

  // Those that the file does not have yet; only with has_algorithms. Written at once.
  void append_algorithms(const std::vector<std::string>& algorithms);

  // Replaces the value of an attribute that the file was made with: by at most 64 bytes, or as many as it had.
  void set_attribute(const std::string& name, const std::string& value);

  // In words, since the last call: what the user should know of the file.
  std::vector<std::string> take_warnings();

  void flush();  // readers see all rows
  void sync();   // flush, and wait until they are on the disk: call it before a checkpoint is saved
  void close();  // flush; no rows after this

 private:
  struct State;
  explicit ResultsWriter(std::unique_ptr<State> state);
  template <typename Fill>
  static std::unique_ptr<State> start(const std::filesystem::path& path, const Attributes& attributes,
                                      ResultsShape shape, const Fill& fill);
  // Writes the file anew where it has been removed.
  void keep_in_place();
  void flush_if_due();
  std::unique_ptr<State> state_;
};

struct ResultsSummary {
  bool readable = false;
  std::string problem;      // where it is not readable
  bool is_results = false;  // says of itself that it holds results, readable or not
  bool unfinished = false;  // a writer has it open, or was killed
  Index schema_version = 0;
  std::map<std::string, std::string> attributes;  // with `config`
  ResultsShape shape;
  Index num_steps = 0;  // rows
  std::optional<StepRow> last_step;
  std::vector<EvaluationRow> evaluations;
};

// Of a file that may be being written. Damage is reported, not thrown. What an older program did not record is 0.
ResultsSummary describe_results(const std::filesystem::path& path);

// In the order that they were chosen in; none where the run had no GPU. Fails for a file that is damaged.
std::vector<std::string> read_algorithms(const std::filesystem::path& path);

// Rows of a table, by their steps, both ends included.
struct RowRange {
  Index first_step = 0, last_step = std::numeric_limits<Index>::max();
  Index most = std::numeric_limits<Index>::max();  // rows; of more, the last ones
};

// Routing of a file that may be being written, by rising step. None where the run has no mixture. Fails for a file that
// is damaged, or of a version that recorded less.
std::vector<RoutingRow> read_routing(const std::filesystem::path& path, const RowRange& range = {});

// Of trees likewise; none where the run has no tree.
std::vector<TreeRow> read_trees(const std::filesystem::path& path, const RowRange& range = {});

}  // namespace switchyard::io
