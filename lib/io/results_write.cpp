#include "io/disk.hpp"
#include "io/results_state.hpp"

namespace switchyard::io {

namespace fs = std::filesystem;

namespace {

template <typename Row, std::size_t kNumColumns>
void check_arrays(const fs::path& path, const TableOf<Row>& table, const Row& row,
                  const std::array<std::vector<float> Row::*, kNumColumns>& members) {
  for (std::size_t c = 0; c < kNumColumns; ++c) {
    const ColumnLayout& column = table.layout[c + 1];
    if (std::ssize(row.*members[c]) != column.row_elements())
      fail("{}: a row of {} has {} numbers; the file has {} layers of {}", path.string(), column.column.path,
           (row.*members[c]).size(), column.row_shape[0], column.row_elements() / column.row_shape[0]);
  }
}

std::string in_words(ResultsShape shape) {
  return fmt::format("routing of {} layers with {} experts and trees of {} layers with {} leaves", shape.layers,
                     shape.experts, shape.tree_layers, shape.leaves);
}

}  // namespace

// Makes a file under a temporary name, fills it and gives it its own name; or leaves nothing behind.
template <typename Fill>
std::unique_ptr<ResultsWriter::State> ResultsWriter::start(const fs::path& path, const Attributes& attributes,
                                                           ResultsShape shape, const Fill& fill) {
  try {
    auto state = std::make_unique<State>(path, attributes, shape);
    try {
      state->create_datasets(attributes);
      fill(*state);
      state->publish();
    } catch (const std::exception& error) {
      state->failure = error.what();
      state->close();
      throw;
    }
    return state;
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary_path(path), ignored);
    throw;
  }
}

ResultsWriter ResultsWriter::create(const fs::path& path, const Attributes& attributes, ResultsShape shape) {
  return ResultsWriter(start(path, attributes, shape, [](State&) {}));
}

ResultsWriter ResultsWriter::reopen(const fs::path& path, Index step, const Attributes& attributes, ResultsShape shape,
                                    bool evaluated) {
  bool unfinished = false;
  const h5::ReadFile old = read_earlier(step, [&] { return open_results(path, unfinished); });
  const ResultsHeader header = read_earlier(step, [&] {
    ResultsHeader read = read_results_header(old, path);
    if (read.schema_version < schema::kResultsVersion)
      fail("{}: written by an older program (schema version {}, this one adds rows to version {} alone)", path.string(),
           read.schema_version, schema::kResultsVersion);
    return read;
  });
  shape.has_algorithms = shape.has_algorithms || header.shape.has_algorithms;
  ResultsShape old_shape = header.shape;
  old_shape.has_algorithms = shape.has_algorithms;
  if (old_shape != shape)
    fail("{}: holds {}, this run has {}: give the run another name", path.string(), in_words(header.shape),
         in_words(shape));
  return ResultsWriter(start(path, attributes, shape,
                             [&](State& state) { state.copy_earlier(old, step, evaluated ? step : step - 1); }));
}

void ResultsWriter::keep_in_place() {
  State& state = *state_;
  if (!state.failure.empty() || !state.file.is_open() || state.is_in_place()) return;
  const fs::path& path = state.path;
  if (fs::exists(fs::symlink_status(path)))
    fail(
        "{}: another file has taken its place while this run was writing to it: move that away, and go on from the "
        "last checkpoint with --resume",
        path.string());
  state.flush();
  constexpr Index kAll = std::numeric_limits<Index>::max();
  std::unique_ptr<State> anew;
  try {
    anew = start(path, {}, state.shape, [&](State& next) { next.copy_earlier(state.file, kAll, kAll); });
  } catch (const Error& error) {
    fail("{}: was removed while this run was writing to it, and cannot be written anew: {}", path.string(),
         error.what());
  }
  state.close();
  anew->warnings.insert(anew->warnings.begin(), state.warnings.begin(), state.warnings.end());
  anew->warnings.push_back(fmt::format(
      "{}: was removed while this run was writing to it; it has been written anew, with all rows", path.string()));
  state_ = std::move(anew);
}

std::vector<std::string> ResultsWriter::take_warnings() { return std::exchange(state_->warnings, {}); }

void ResultsWriter::flush_if_due() {
  if (state_->is_due()) flush();
}

ResultsWriter::ResultsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
ResultsWriter::ResultsWriter(ResultsWriter&&) noexcept = default;
ResultsWriter& ResultsWriter::operator=(ResultsWriter&&) noexcept = default;

ResultsWriter::~ResultsWriter() {
  if (!state_) return;
  try {
    close();
  } catch (const std::exception&) {  // close() by hand to know
  }
}

Index ResultsWriter::last_step() const { return state_->steps.last_step; }
Index ResultsWriter::last_evaluation() const { return state_->evaluations.last_step; }

void ResultsWriter::append(const StepRow& row) {
  state_->steps.pending.push_back(row);
  state_->steps.last_step = row.step;
  flush_if_due();
}

void ResultsWriter::append(const EvaluationRow& row) {
  state_->evaluations.pending.push_back(row);
  state_->evaluations.last_step = row.step;
  flush_if_due();
}

void ResultsWriter::append(const RoutingRow& row) {
  if (state_->shape.layers == 0)
    fail("{}: has no place for a row of routing: it was made for a run without a mixture", state_->path.string());
  check_arrays(state_->path, state_->routing, row, kRoutingMembers);
  state_->routing.pending.push_back(row);
  flush_if_due();
}

void ResultsWriter::append(const TreeRow& row) {
  if (state_->shape.tree_layers == 0)
    fail("{}: has no place for a row of trees: it was made for a run without a tree", state_->path.string());
  check_arrays(state_->path, state_->trees, row, kTreesMembers);
  state_->trees.pending.push_back(row);
  flush_if_due();
}

void ResultsWriter::append_algorithms(const std::vector<std::string>& lines) {
  keep_in_place();
  if (!state_->algorithms)
    fail("{}: has no place for algorithms: it was made for a run without a GPU", state_->path.string());
  state_->append_algorithms(lines);
}

void ResultsWriter::set_attribute(const std::string& name, const std::string& value) {
  if (!state_->failure.empty()) fail("{}", state_->failure);
  keep_in_place();
  const fs::path& path = state_->path;
  const h5::Handle attribute(H5Aopen(state_->file, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!attribute.is_open()) fail("{}: was made without an attribute {}", path.string(), name);
  const h5::Handle type(H5Aget_type(attribute), H5Tclose);
  std::string padded = value;
  padded.resize(H5Tget_size(type));
  if (padded.size() < value.size())
    fail("{}: attribute {} has room for {} bytes, not for {}", path.string(), name, padded.size(), value.size());
  state_->reserve(kMetadataBytes);  // it has its place, but HDF5 may not meet a file that it cannot write
  h5::check(H5Awrite(attribute, type, padded.data()), path, "write attribute " + name);
}

void ResultsWriter::flush() {
  keep_in_place();
  state_->flush();
}

void ResultsWriter::sync() {
  flush();
  sync_file(state_->path);
}

void ResultsWriter::close() {
  if (!state_->file.is_open()) return;
  // Closed whether or not the last rows fit.
  std::exception_ptr problem;
  try {
    flush();
  } catch (...) {
    problem = std::current_exception();
  }
  state_->close();
  if (problem) std::rethrow_exception(problem);
}

}  // namespace switchyard::io
