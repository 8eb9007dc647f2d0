#include "core/h5.hpp"

#include <algorithm>
#include <filesystem>
#include <string_view>

namespace switchyard::h5 {

void silence() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

Handle unlocked_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access, false, true);
  return access;
}

std::string last_message() {
  std::string text;
  const auto take_first = [](unsigned position, const H5E_error2_t* error, void* out) -> herr_t {
    if (position == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &text);
  constexpr std::string_view kQuote = "error message = '";
  if (const auto begin = text.find(kQuote); begin != text.npos) {
    const auto end = text.find('\'', begin + kQuote.size());
    text = text.substr(begin + kQuote.size(), end - begin - kQuote.size());
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

namespace {

// HDF5 calls it before it follows an external link. It looks for the file beside the one with the link, and by its
// name as it stands.
herr_t allow_files_alone(const char* parent, const char*, const char* child, const char*, unsigned*, hid_t, void*) {
  std::error_code ignored;
  for (const std::filesystem::path& path : {std::filesystem::path(parent).parent_path() / child, {child}})
    if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
      H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_LINK, H5E_CANTOPENFILE,
               "an external link leads to %s, which is no file", path.c_str());
      return -1;
    }
  return 0;
}

}  // namespace

Handle open_dataset(hid_t group, const std::string& name) {
  // Kept: to close it would clear HDF5's reason where the next call fails.
  static const hid_t access = [] {
    const hid_t list = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_elink_cb(list, allow_files_alone, nullptr);
    return list;
  }();
  return Handle(H5Dopen2(group, name.c_str(), access), H5Dclose);
}

bool is_elsewhere(hid_t dataset) {
  const Handle creation(H5Dget_create_plist(dataset), H5Pclose);
  return creation.is_open() && (H5Pget_external_count(creation) != 0 || H5Pget_layout(creation) == H5D_VIRTUAL);
}

std::string name_of_file(hid_t dataset) {
  std::string name(static_cast<std::size_t>(std::max<ssize_t>(H5Fget_name(dataset, nullptr, 0), 0)), '\0');
  H5Fget_name(dataset, name.data(), name.size() + 1);
  return name;
}

double most_bytes(hid_t dataset) {
  constexpr double kMostShrinkage = 1100;  // no filter in common use shrinks more than deflate: 1032 to 1
  const Handle creation(H5Dget_create_plist(dataset), H5Pclose), file(H5Iget_file_id(dataset), H5Fclose);
  hsize_t length = 0;
  if (!creation.is_open() || is_elsewhere(dataset) || H5Fget_filesize(file, &length) < 0) return 0;
  const auto stored = static_cast<double>(std::min(H5Dget_storage_size(dataset), length));
  return H5Pget_nfilters(creation) > 0 ? kMostShrinkage * stored : stored;
}

std::optional<Index> read_integer(hid_t object, const char* name) {
  if (H5Aexists(object, name) <= 0) return std::nullopt;
  const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  Index value = 0;
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
    return std::nullopt;
  return value;
}

}  // namespace switchyard::h5
