#include "io/h5.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace switchyard::h5 {

Handle file_access(H5F_libver_t low, H5F_libver_t high) {
  Handle access = unlocked_access();
  H5Pset_libver_bounds(access, low, high);
  return access;
}

int descriptor_of(const Handle& file) {
  void* descriptor = nullptr;
  return H5Fget_vfd_handle(file, H5P_DEFAULT, &descriptor) >= 0 && descriptor ? *static_cast<int*>(descriptor) : -1;
}

void abandon(Handle& file) {
  if (!file.is_open()) return;
  const int nowhere = memfd_create("abandoned", MFD_CLOEXEC), descriptor = descriptor_of(file);
  if (nowhere >= 0 && descriptor >= 0) dup2(nowhere, descriptor);
  if (nowhere >= 0) ::close(nowhere);
  file.close();
}

Handle string_type(std::size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<std::size_t>(bytes, 1));  // HDF5 has no strings of length 0
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  return type;
}

void write_attribute(hid_t object, const std::string& name, std::string_view text, const std::filesystem::path& where,
                     std::size_t capacity) {
  if (text.size() > kMaxAttributeBytes)
    fail("{}: attribute {} is {} bytes long; at most {} fit", where.string(), name, text.size(), kMaxAttributeBytes);
  std::string padded(text);
  padded.resize(std::max<std::size_t>({text.size(), capacity, 1}));
  const Handle type = string_type(padded.size());
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  check(hid_t(attribute), where, "create attribute " + name);
  check(H5Awrite(attribute, type, padded.data()), where, "write attribute " + name);
}

void write_attribute(hid_t object, const std::string& name, std::int64_t value, const std::filesystem::path& where) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(object, name.c_str(), H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  check(hid_t(attribute), where, "create attribute " + name);
  check(H5Awrite(attribute, H5T_NATIVE_INT64, &value), where, "write attribute " + name);
}

namespace {

constexpr std::size_t kLargestAttribute = 64 * 1024;  // a larger one is not of this program

// `text` is padded with zeros by HDF5.
void trim(std::string& text) { text.resize(text.find_last_not_of('\0') + 1); }

bool is_fixed_string(hid_t type) { return H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0; }

}  // namespace

std::optional<std::string> read_text(hid_t object, const char* name) {
  if (H5Aexists(object, name) <= 0) return std::nullopt;
  const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  if (!is_fixed_string(type) || H5Sget_simple_extent_npoints(space) != 1) return std::nullopt;
  if (H5Tget_size(type) > kLargestAttribute) return std::nullopt;
  std::string text(H5Tget_size(type), '\0');
  if (H5Aread(attribute, type, text.data()) < 0) return std::nullopt;
  trim(text);
  return text;
}

std::optional<std::string> read_text(hid_t object, const char* name, const std::filesystem::path& where) {
  const std::string action = std::string("read attribute ") + name;
  if (check_read(H5Aexists(object, name), where, action) == 0) return std::nullopt;
  check_read(hid_t(Handle(H5Aopen(object, name, H5P_DEFAULT), H5Aclose)), where, action);
  return read_text(object, name);
}

std::vector<std::string> attribute_names(hid_t object) {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names);
  return names;
}

void write_text_dataset(hid_t file, const char* name, std::string_view text, const std::filesystem::path& where) {
  const Handle type = string_type(text.size());
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  const Handle dataset(H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose);
  check(hid_t(dataset), where, std::string("create ") + name);
  const std::string padded = text.empty() ? std::string(1, '\0') : std::string(text);
  check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()), where, std::string("write ") + name);
}

std::optional<std::string> read_text_dataset(hid_t file, const char* name) {
  const Handle dataset = open_dataset(file, name);
  if (!dataset.is_open()) return std::nullopt;
  const Handle type(H5Dget_type(dataset), H5Tclose);
  const Handle space(H5Dget_space(dataset), H5Sclose);
  if (!is_fixed_string(type) || H5Sget_simple_extent_npoints(space) != 1) return std::nullopt;
  if (static_cast<double>(H5Tget_size(type)) > most_bytes(dataset)) return std::nullopt;
  std::string text(H5Tget_size(type), '\0');
  if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()) < 0) return std::nullopt;
  trim(text);
  return text;
}

std::vector<Index> shape_of(hid_t dataset) {
  const Handle space(H5Dget_space(dataset), H5Sclose);
  const int rank = space.is_open() ? H5Sget_simple_extent_ndims(space) : 0;
  if (rank <= 0) return {};
  std::vector<hsize_t> extent(rank);
  H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  return {extent.begin(), extent.end()};
}

}  // namespace switchyard::h5
