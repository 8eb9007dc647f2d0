#include "io/checkpoint_file.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <xxhash.h>

#include "core/files.hpp"
#include "io/schema.hpp"

namespace switchyard::io {
namespace {

class Packer {
 public:
  void add(std::int64_t value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void add(std::string_view text) {
    add(static_cast<std::int64_t>(text.size()));
    bytes_.append(text);
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}
  std::int64_t number() {
    std::int64_t value = 0;
    if (bytes_.size() < sizeof value) fail("a packed checkpoint header ends too early");
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return value;
  }
  std::string text() {
    const auto length = static_cast<std::size_t>(number());
    if (bytes_.size() < length) fail("a packed checkpoint header ends too early");
    std::string text(bytes_.substr(0, length));
    bytes_.remove_prefix(length);
    return text;
  }

 private:
  std::string_view bytes_;
};

bool is_reserved(const std::string& name) {
  return name == schema::kFormat || name == schema::kSchemaVersion || name == schema::kStep ||
         name == schema::kDigest || name == schema::kHeaderChecksum;
}

std::vector<std::string> dataset_names(const h5::Handle& file, const std::filesystem::path& path) {
  std::vector<std::string> names;
  const auto add = [](hid_t group, const char* name, const H5L_info_t* link, void* out) -> herr_t {
    if (link->type != H5L_TYPE_HARD) return 0;
    const h5::Handle object(H5Oopen(group, name, H5P_DEFAULT), H5Oclose);
    if (!object.is_open()) return -1;
    if (H5Iget_type(object) == H5I_DATASET) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  h5::check_read(H5Lvisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, add, &names), path, "list the arrays");
  std::erase(names, schema::kConfig);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string_view plain_name(std::string_view name) {
  while (name.starts_with('/')) name.remove_prefix(1);
  return name;
}

Index num_elements(const std::vector<Index>& shape) {
  Index product = 1;
  for (const Index extent : shape) product *= extent;
  return product;
}

std::string to_text(const std::vector<Index>& shape) {
  std::string text;
  for (const Index extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "(" + text + ")";
}

std::string pack(const CheckpointInfo& info) {
  Packer packer;
  packer.add(info.step);
  packer.add(info.config);
  packer.add(info.digest);
  packer.add(static_cast<std::int64_t>(info.attributes.size()));
  for (const auto& [name, value] : info.attributes) {
    packer.add(name);
    packer.add(value);
  }
  return packer.take();
}

CheckpointInfo unpack(std::string_view bytes) {
  Unpacker unpacker(bytes);
  CheckpointInfo info;
  info.step = unpacker.number();
  info.config = unpacker.text();
  info.digest = unpacker.text();
  for (std::int64_t left = unpacker.number(); left > 0; --left) {
    std::string name = unpacker.text();
    info.attributes[std::move(name)] = unpacker.text();
  }
  return info;
}

std::uint64_t checksum_of(const CheckpointHeader& header) {
  Packer packer;
  packer.add(header.schema_version);
  packer.add(pack(header.info));
  packer.add(static_cast<std::int64_t>(header.arrays.size()));
  for (const ArrayRecord& array : header.arrays) {
    packer.add(array.name);
    packer.add(static_cast<std::int64_t>(array.per_expert));
    packer.add(static_cast<std::int64_t>(array.shape.size()));
    for (const Index extent : array.shape) packer.add(extent);
    packer.add(static_cast<std::int64_t>(array.checksums.size()));
    for (const std::uint64_t checksum : array.checksums) packer.add(static_cast<std::int64_t>(checksum));
  }
  const std::string bytes = packer.take();
  return XXH3_64bits(bytes.data(), bytes.size());
}

h5::ReadFile open_checkpoint(const std::filesystem::path& path) {
  h5::silence();
  require_file(path);
  const h5::Handle access = h5::file_access(H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
  h5::ReadFile file(path);
  if (file.open(H5F_ACC_RDONLY, access)) return file;
  const std::string reason = h5::last_message();
  if (H5Fis_hdf5(path.c_str()) <= 0)
    fail("{}: is not an HDF5 file, or its first bytes are damaged ({})", path.string(), reason);
  fail("{}: is damaged or cut short: {}", path.string(), reason);
}

CheckpointHeader read_checkpoint_header(const h5::Handle& file, const std::filesystem::path& path) {
  const auto format = h5::read_text(file, schema::kFormat, path);
  if (format == schema::kResultsFormat) fail("{}: is a results file, not a checkpoint", path.string());
  if (format != schema::kCheckpointFormat)
    fail("{}: is damaged, or an HDF5 file but no checkpoint of this program: its attribute format {}", path.string(),
         format ? "is not a checkpoint's" : "is missing");
  CheckpointHeader header;
  const auto integer = [&](const char* name) {
    const auto value = h5::read_integer(file, name);
    if (!value) fail("{}: is damaged: cannot read attribute {}", path.string(), name);
    return *value;
  };
  header.schema_version = integer(schema::kSchemaVersion);
  if (header.schema_version > schema::kCheckpointVersion)
    fail("{}: written by a newer program (schema version {}, this one reads up to {}): use that program", path.string(),
         header.schema_version, schema::kCheckpointVersion);
  header.info.step = integer(schema::kStep);
  const auto config = h5::read_text_dataset(file, schema::kConfig);
  if (!config) fail("{}: is damaged: cannot read {}", path.string(), schema::kConfig);
  header.info.config = *config;
  for (const std::string& name : h5::attribute_names(file)) {
    if (is_reserved(name)) continue;
    const auto value = h5::read_text(file, name.c_str());
    if (!value) fail("{}: is damaged: cannot read attribute {}", path.string(), name);
    header.info.attributes[name] = *value;
  }
  header.info.digest = h5::read_text(file, schema::kDigest).value_or("");
  for (const std::string& name : dataset_names(file, path)) header.arrays.push_back(read_record(file, name, path));
  if (!matches(checksum_of(header), static_cast<std::uint64_t>(integer(schema::kHeaderChecksum))))
    fail("{}: is damaged: its attributes or list of arrays do not match their checksum", path.string());
  return header;
}

ArrayRecord read_record(const h5::Handle& file, const std::string& name, const std::filesystem::path& path) {
  const h5::Handle dataset = h5::open_dataset(file, name);
  h5::check_read(hid_t(dataset), path, "open array " + name);
  const h5::Handle type(H5Dget_type(dataset), H5Tclose);
  if (H5Tequal(type, H5T_IEEE_F32LE) <= 0) fail("{}: array {} is not float32", path.string(), name);
  ArrayRecord record{name, h5::shape_of(dataset), false, {}};
  double bytes = sizeof(float);
  for (const Index extent : record.shape) bytes *= static_cast<double>(extent);
  if (bytes <= 0 || bytes > h5::most_bytes(dataset))
    fail("{}: is damaged: array {} claims shape {}, but the file holds {:.0f} bytes of it", path.string(), name,
         to_text(record.shape), h5::most_bytes(dataset));
  const h5::Handle attribute(H5Aopen(dataset, schema::kChecksum, H5P_DEFAULT), H5Aclose);
  h5::check_read(hid_t(attribute), path, "read the checksum of " + name);
  const h5::Handle space(H5Aget_space(attribute), H5Sclose);
  record.per_expert = H5Sget_simple_extent_type(space) == H5S_SIMPLE;
  const hssize_t num_checksums = H5Sget_simple_extent_npoints(space);
  if (record.shape.empty() || num_checksums != (record.per_expert ? record.shape[0] : 1))
    fail("{}: is damaged: array {} has shape {} and {} checksums", path.string(), name, to_text(record.shape),
         num_checksums);
  record.checksums.resize(static_cast<std::size_t>(num_checksums));
  h5::check_read(H5Aread(attribute, H5T_NATIVE_UINT64, record.checksums.data()), path, "read the checksum of " + name);
  return record;
}

RowSelection::RowSelection(const std::vector<Index>& shape, Index first, Index count) {
  std::vector<hsize_t> extent(shape.begin(), shape.end()), start(shape.size(), 0);
  file = h5::Handle(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
  start[0] = static_cast<hsize_t>(first);
  extent[0] = static_cast<hsize_t>(count);
  H5Sselect_hyperslab(file, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
  memory = h5::Handle(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
}

}  // namespace switchyard::io
