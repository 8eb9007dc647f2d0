#include "io/disk.hpp"
#include "io/results_state.hpp"

namespace switchyard::io {

namespace fs = std::filesystem;

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

ResultsWriter ResultsWriter::reopen(const fs::path& path, Index step, const Attributes& attributes,
                                    ResultsShape shape) {
  bool unfinished = false;
  const h5::Handle old = read_earlier(step, [&] { return open_results(path, unfinished); });
  const ResultsHeader header = read_earlier(step, [&] {
    ResultsHeader read = read_results_header(old, path);
    if (read.schema_version < schema::kResultsVersion)
      fail("{}: written by an older program (schema version {}, this one adds rows to version {} alone)", path.string(),
           read.schema_version, schema::kResultsVersion);
    return read;
  });
  if (header.shape != shape)
    fail("{}: holds routing of {} layers with {} experts, this run has {} and {}: give the run another name",
         path.string(), header.shape.layers, header.shape.experts, shape.layers, shape.experts);
  Attributes merged = attributes;
  merged.insert(header.attributes.begin(), header.attributes.end());
  return ResultsWriter(start(path, merged, shape, [&](State& state) { state.copy_rows(old, path, step); }));
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

void ResultsWriter::append(const StepRow& row) {
  state_->pending_steps.push_back(row);
  state_->flush_if_due();
}

void ResultsWriter::append(const EvaluationRow& row) {
  state_->pending_evaluations.push_back(row);
  state_->flush_if_due();
}

void ResultsWriter::append(const RoutingRow& row) {
  if (state_->shape.layers == 0)
    fail("{}: has no place for a row of routing: it was made for a run without a mixture", state_->path.string());
  for (std::size_t c = 0; c < kRoutingMembers.size(); ++c) {
    const ColumnLayout& column = state_->routing.layout[c + 1];
    if (static_cast<Index>((row.*kRoutingMembers[c]).size()) != column.row_elements())
      fail("{}: a row of {} has {} numbers; the file has {} layers of {} experts", state_->path.string(),
           column.column.path, (row.*kRoutingMembers[c]).size(), state_->shape.layers, state_->shape.experts);
  }
  state_->pending_routing.push_back(row);
  state_->flush_if_due();
}

void ResultsWriter::set_attribute(const std::string& name, const std::string& value) {
  if (!state_->failure.empty()) fail("{}", state_->failure);
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

void ResultsWriter::flush() { state_->flush(); }

void ResultsWriter::sync() {
  state_->flush();
  sync_file(state_->path);
}

void ResultsWriter::close() {
  if (!state_->file.is_open()) return;
  // Closed whether or not the last rows fit.
  std::exception_ptr problem;
  try {
    state_->flush();
  } catch (...) {
    problem = std::current_exception();
  }
  state_->close();
  if (problem) std::rethrow_exception(problem);
}

}  // namespace switchyard::io
