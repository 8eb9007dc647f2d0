#include "io/table_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.hpp"
#include "io/disk.hpp"
#include "io/h5.hpp"
#include "io/results_file.hpp"
#include "io/schema.hpp"

namespace switchyard::io {
namespace {

namespace fs = std::filesystem;

constexpr Index kMetadataBytes = 256 * 1024;  // more than HDF5's own tables of such a file
constexpr Index kLinkBytes = 16 * 1024;       // more than a link with the longest path

// Strings as one block, each padded to the longest.
struct PaddedText {
  std::string block;
  std::size_t width = 1;

  explicit PaddedText(const std::vector<std::string>& values) {
    for (const std::string& value : values) width = std::max(width, value.size());
    for (const std::string& value : values) block += value + std::string(width - value.size(), '\0');
  }
};

void write_dataset(hid_t file, const TableColumn& column, hid_t type, const void* values, std::size_t count,
                   const fs::path& where) {
  const auto extent = static_cast<hsize_t>(count);
  const h5::Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  const h5::Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links, 1);
  const h5::Handle dataset(H5Dcreate2(file, column.path.c_str(), type, space, links, H5P_DEFAULT, H5P_DEFAULT),
                           H5Dclose);
  h5::check(hid_t(dataset), where, "create " + column.path);
  h5::check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), where, "write " + column.path);
  h5::write_attribute(dataset, schema::kUnits, column.units, where);
}

void write_column(hid_t file, const TableColumn& column, const fs::path& where) {
  if (const auto* texts = std::get_if<std::vector<std::string>>(&column.values)) {
    const PaddedText padded(*texts);
    write_dataset(file, column, h5::string_type(padded.width), padded.block.data(), texts->size(), where);
  } else if (const auto* numbers = std::get_if<std::vector<double>>(&column.values)) {
    write_dataset(file, column, H5T_IEEE_F64LE, numbers->data(), numbers->size(), where);
  } else {
    const auto& integers = std::get<std::vector<Index>>(column.values);
    write_dataset(file, column, H5T_STD_I64LE, integers.data(), integers.size(), where);
  }
}

void write_link(hid_t file, const TableLink& link, const fs::path& where) {
  const h5::Handle creation(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(creation, 1);
  h5::check(H5Lcreate_external(link.target.c_str(), "/", file, link.path.c_str(), creation, H5P_DEFAULT), where,
            "create " + link.path);
}

// Of the numbers and texts themselves.
Index bytes_of(const std::vector<TableColumn>& columns, const std::map<std::string, std::string>& attributes) {
  std::size_t bytes = 0;
  for (const auto& [name, value] : attributes) bytes += name.size() + value.size();
  for (const TableColumn& column : columns) {
    const auto* texts = std::get_if<std::vector<std::string>>(&column.values);
    bytes += texts ? PaddedText(*texts).block.size()
                   : std::visit([](const auto& values) { return values.size() * 8; }, column.values);
  }
  return static_cast<Index>(bytes);
}

std::string kind_of(const std::optional<std::string>& format) {
  if (format == schema::kResultsFormat) return "a results file of a training run";
  if (format == schema::kCheckpointFormat) return "a checkpoint";
  if (format == schema::kBenchFormat) return "a benchmark";
  if (format == schema::kStudyFormat) return "a collected study";
  return "an HDF5 file of another program";
}

h5::ReadFile open_to_read(const fs::path& path) {
  bool unfinished = false;
  return open_results(path, unfinished);
}

// --overwrite given by mistake must not cost a run's results.
void require_replaceable(const fs::path& path, TableFormat table) {
  const std::string advice =
      fmt::format("--overwrite replaces only what switchyard {} wrote: choose another name", table.writer);
  std::optional<std::string> format;
  try {
    format = h5::read_text(open_to_read(path), schema::kFormat);
  } catch (const Error& error) {
    fail_usage("{}; {}", error.what(), advice);
  }
  if (format != table.name) fail_usage("{} is {}; {}", path.string(), kind_of(format), advice);
}

struct Temporary {
  fs::path path;
  ~Temporary() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

// Of what lies in the file itself.
std::vector<std::string> names_in(hid_t group) {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5L_info_t* link, void* data) -> herr_t {
    if (link->type == H5L_TYPE_HARD) static_cast<std::vector<std::string>*>(data)->emplace_back(name);
    return 0;
  };
  H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names);
  return names;
}

}  // namespace

TableFile::TableFile(fs::path path, bool overwrite, TableFormat format)
    : format_(format), path_(std::move(path)), temporary_(fmt::format("{}.{}.tmp", path_.string(), getpid())) {
  if (fs::is_directory(path_)) fail_usage("{} is a folder: name a file in it", path_.string());
  if (!overwrite && fs::exists(path_))
    fail_usage("{} is already there; replace it (--overwrite), or choose another name", path_.string());
  if (fs::exists(path_) && !fs::is_regular_file(fs::symlink_status(path_)))
    fail_usage("{} is not a file of its own (a device, or a link): choose another name", path_.string());
  if (fs::exists(path_)) require_replaceable(path_, format);
  const fs::path folder = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  if (access(folder.c_str(), W_OK) != 0)
    fail_usage("{}: cannot write to its folder, {} ({}): name a file in a folder that is there and can be written",
               path_.string(), folder.string(), std::strerror(errno));
  const Temporary temporary{temporary_};
  create_with_space(temporary_, kMetadataBytes, true);
}

void TableFile::write(const std::vector<TableColumn>& columns, const std::map<std::string, std::string>& attributes,
                      const std::vector<TableLink>& links) {
  h5::silence();
  const Temporary temporary{temporary_};
  const h5::Handle access = h5::file_access(H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
  h5::Handle file(H5Fcreate(temporary_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose);
  h5::check(hid_t(file), temporary_, "create the file");
  try {
    reserve_space(temporary_, 0,
                  kMetadataBytes + kLinkBytes * static_cast<Index>(links.size()) + bytes_of(columns, attributes), true);
    h5::write_attribute(file, schema::kFormat, format_.name, path_);
    h5::write_attribute(file, schema::kSchemaVersion, format_.version, path_);
    for (const auto& [name, value] : attributes) {
      if (name == schema::kConfig)
        h5::write_text_dataset(file, schema::kConfig, value, path_);
      else
        h5::write_attribute(file, name, value, path_);
    }
    for (const TableColumn& column : columns) write_column(file, column, path_);
    for (const TableLink& link : links) write_link(file, link, path_);
    h5::check(H5Fflush(file, H5F_SCOPE_LOCAL), path_, "write to disk");
  } catch (...) {
    h5::abandon(file);
    throw;
  }
  h5::check(file.close(), path_, "close the file");
  release_reserved(temporary_);
  sync_file(temporary_);
  rename_file(temporary_, path_);
}

std::optional<TableSummary> describe_table(const fs::path& path) {
  const h5::ReadFile file = open_to_read(path);
  const std::optional<std::string> name_of_format = h5::read_text(file, schema::kFormat);
  if (name_of_format != kBenchTable.name && name_of_format != kStudyTable.name) return std::nullopt;
  const TableFormat format = name_of_format == kStudyTable.name ? kStudyTable : kBenchTable;
  const Index version = h5::read_integer(file, schema::kSchemaVersion).value_or(0);
  if (version > format.version)
    fail("{}: written by a newer program (schema version {}, this one reads up to {}): use that program", path.string(),
         version, format.version);
  TableSummary summary;
  for (const std::string& name : h5::attribute_names(file))
    if (name != schema::kFormat && name != schema::kSchemaVersion)
      summary.attributes[name] = h5::read_text(file, name.c_str()).value_or("");
  for (const std::string& table : names_in(file)) {
    if (table == schema::kConfig || table == schema::kStudyRuns) continue;
    const h5::Handle group(H5Gopen2(file, table.c_str(), H5P_DEFAULT), H5Gclose);
    h5::check_read(hid_t(group), path, "open " + table);
    for (const std::string& name : names_in(group)) {
      const h5::Handle dataset = h5::open_dataset(group, name);
      h5::check_read(hid_t(dataset), path, "open " + table + "/" + name);
      const std::vector<Index> shape = h5::shape_of(dataset);
      if (shape.size() != 1) fail("{}: is damaged: {}/{} is no column", path.string(), table, name);
      summary.columns.emplace_back(table + "/" + name, shape[0]);
    }
  }
  return summary;
}

}  // namespace switchyard::io
