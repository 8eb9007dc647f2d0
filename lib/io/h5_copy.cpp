#include "io/h5_copy.hpp"

#include <algorithm>
#include <map>

namespace switchyard::h5 {

namespace {

constexpr Index kObjectBytes = 16 * 1024;  // more than the header of an object with some attributes

class Copier {
 public:
  Copier(const std::filesystem::path& where, const std::function<void(Index)>& reserve)
      : where_(where), reserve_(reserve) {}

  // Notes the objects that both files have. `path` is that of both in their files; empty for the root.
  void note_shared(hid_t from, hid_t to, const std::string& path);
  void copy_missing(hid_t from, hid_t to, const std::string& path);

  std::vector<std::string> left_behind;

 private:
  void copy_attribute(hid_t from, hid_t to, const std::string& name, const std::string& path);
  void copy_link(hid_t from, hid_t to, const std::string& name, const H5L_info_t& info, const std::string& path);

  const std::filesystem::path& where_;
  const std::function<void(Index)>& reserve_;
  std::map<haddr_t, std::string> copies_;  // objects of the old file, by address: their paths in the new one
};

struct Link {
  std::string name;
  H5L_info_t info;
};

std::vector<Link> links_of(hid_t group) {
  std::vector<Link> links;
  const auto add = [](hid_t, const char* name, const H5L_info_t* info, void* out) -> herr_t {
    static_cast<std::vector<Link>*>(out)->push_back({name, *info});
    return 0;
  };
  H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &links);
  return links;
}

haddr_t address_of(hid_t object) {
  H5O_info_t info;
  return H5Oget_info2(object, &info, H5O_INFO_BASIC) < 0 ? HADDR_UNDEF : info.addr;
}

bool refers_to_objects(hid_t dataset) {
  const Handle type(H5Dget_type(dataset), H5Tclose);
  return H5Tdetect_class(type, H5T_REFERENCE) > 0;
}

// Whether objects of the same kind have something to compare: groups and datasets do.
bool can_hold_more(const Handle& a, const Handle& b) {
  const H5I_type_t type = H5Iget_type(a);
  return a.is_open() && b.is_open() && type == H5Iget_type(b) && (type == H5I_GROUP || type == H5I_DATASET);
}

}  // namespace

void Copier::copy_attribute(hid_t from, hid_t to, const std::string& name, const std::string& path) {
  const std::string full = path + "@" + name;
  const Handle source(H5Aopen(from, name.c_str(), H5P_DEFAULT), H5Aclose);
  check_read(hid_t(source), where_, "read attribute " + full);
  const Handle file_type(H5Aget_type(source), H5Tclose), space(H5Aget_space(source), H5Sclose);
  const Handle type(H5Tcopy(file_type), H5Tclose);  // a named type belongs to its file
  if (H5Tdetect_class(type, H5T_REFERENCE) > 0) return left_behind.push_back(full);
  const Index count = std::max<Index>(H5Sget_simple_extent_npoints(space), 0);
  const Handle file(H5Iget_file_id(from), H5Fclose);
  hsize_t length = 0;
  check_read(H5Fget_filesize(file, &length), where_, "find the file's length");
  if (static_cast<double>(count) * static_cast<double>(H5Tget_size(type)) > static_cast<double>(length))
    fail("{}: is damaged: attribute {} claims more bytes than the file has", where_.string(), full);
  std::vector<char> values(static_cast<std::size_t>(count) * H5Tget_size(type));
  reserve_(kObjectBytes + static_cast<Index>(values.size()));
  const Handle copy(H5Acreate2(to, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  check(hid_t(copy), where_, "create attribute " + full);
  if (count == 0) return;
  check_read(H5Aread(source, type, values.data()), where_, "read attribute " + full);
  const herr_t written = H5Awrite(copy, type, values.data());
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, values.data());
  check(written, where_, "write attribute " + full);
}

void Copier::copy_link(hid_t from, hid_t to, const std::string& name, const H5L_info_t& info, const std::string& path) {
  const char* const word = name.c_str();
  if (info.type == H5L_TYPE_HARD) {
    const Handle object(H5Oopen(from, word, H5P_DEFAULT), H5Oclose);
    check_read(hid_t(object), where_, "open " + path);
    const auto [copy, is_new] = copies_.emplace(address_of(object), path);
    if (!is_new) {
      const Handle file(H5Iget_file_id(to), H5Fclose);
      reserve_(kObjectBytes);
      check(H5Lcreate_hard(file, copy->second.c_str(), to, word, H5P_DEFAULT, H5P_DEFAULT), where_, "link " + path);
      return;
    }
    reserve_(kObjectBytes);
    if (H5Iget_type(object) == H5I_GROUP) {
      const Handle group(H5Gcreate2(to, word, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
      check(hid_t(group), where_, "create group " + path);
      return copy_missing(object, group, path);
    }
    if (H5Iget_type(object) == H5I_DATASET) {
      if (refers_to_objects(object)) return left_behind.push_back(path);
      reserve_(static_cast<Index>(H5Dget_storage_size(object)));
    }
    check(H5Ocopy(from, word, to, word, H5P_DEFAULT, H5P_DEFAULT), where_, "copy " + path);
    return;
  }
  if (info.type != H5L_TYPE_SOFT && info.type != H5L_TYPE_EXTERNAL) return left_behind.push_back(path);
  std::vector<char> value(info.u.val_size + 1);
  check_read(H5Lget_val(from, word, value.data(), value.size(), H5P_DEFAULT), where_, "read link " + path);
  reserve_(kObjectBytes);
  if (info.type == H5L_TYPE_SOFT) {
    check(H5Lcreate_soft(value.data(), to, word, H5P_DEFAULT, H5P_DEFAULT), where_, "create link " + path);
    return;
  }
  const char *file = nullptr, *object = nullptr;
  check_read(H5Lunpack_elink_val(value.data(), info.u.val_size, nullptr, &file, &object), where_, "read link " + path);
  check(H5Lcreate_external(file, object, to, word, H5P_DEFAULT, H5P_DEFAULT), where_, "create link " + path);
}

void Copier::note_shared(hid_t from, hid_t to, const std::string& path) {
  if (!copies_.emplace(address_of(from), path.empty() ? "/" : path).second || H5Iget_type(from) == H5I_DATASET) return;
  for (const auto& [name, info] : links_of(from)) {
    if (info.type != H5L_TYPE_HARD || H5Lexists(to, name.c_str(), H5P_DEFAULT) <= 0) continue;
    const Handle old_object(H5Oopen(from, name.c_str(), H5P_DEFAULT), H5Oclose),
        new_object(H5Oopen(to, name.c_str(), H5P_DEFAULT), H5Oclose);
    if (can_hold_more(old_object, new_object)) note_shared(old_object, new_object, path + "/" + name);
  }
}

void Copier::copy_missing(hid_t from, hid_t to, const std::string& path) {
  for (const std::string& name : attribute_names(from))
    if (H5Aexists(to, name.c_str()) == 0) copy_attribute(from, to, name, path);
  if (H5Iget_type(from) == H5I_DATASET) return;
  for (const auto& [name, info] : links_of(from)) {
    const std::string below = path + "/" + name;
    if (H5Lexists(to, name.c_str(), H5P_DEFAULT) == 0) {
      copy_link(from, to, name, info, below);
    } else if (info.type == H5L_TYPE_HARD) {
      const Handle old_object(H5Oopen(from, name.c_str(), H5P_DEFAULT), H5Oclose),
          new_object(H5Oopen(to, name.c_str(), H5P_DEFAULT), H5Oclose);
      if (can_hold_more(old_object, new_object)) copy_missing(old_object, new_object, below);
    }
  }
}

std::vector<std::string> copy_missing(hid_t from, hid_t to, const std::filesystem::path& where,
                                      const std::function<void(Index)>& reserve) {
  Copier copier(where, reserve);
  copier.note_shared(from, to, "");
  copier.copy_missing(from, to, "");
  return copier.left_behind;
}

}  // namespace switchyard::h5
