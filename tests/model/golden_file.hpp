// Reads the files that golden/make_golden.py writes.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/types.hpp"

namespace switchyard::testing {

class GoldenFile {
 public:
  // name: "dense" for dense.h5
  explicit GoldenFile(const std::string& name) : path_(std::string(SWITCHYARD_GOLDEN) + "/" + name + ".h5") {
    file_ = H5Fopen(path_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file_ < 0) fail("{}: cannot open; write it again with make_golden.py", path_);
  }
  ~GoldenFile() { H5Fclose(file_); }
  GoldenFile(const GoldenFile&) = delete;
  GoldenFile& operator=(const GoldenFile&) = delete;

  Index integer(const char* attribute) const {
    Index value = 0;
    read_attribute("/", attribute, H5T_NATIVE_INT64, &value);
    return value;
  }
  double real(const std::string& object, const char* attribute) const {
    double value = 0;
    read_attribute(object, attribute, H5T_NATIVE_DOUBLE, &value);
    return value;
  }
  std::string text(const char* attribute) const {
    const hid_t opened = H5Aopen_by_name(file_, "/", attribute, H5P_DEFAULT, H5P_DEFAULT);
    if (opened < 0) fail("{}: / has no attribute {}", path_, attribute);
    const hid_t type = H5Aget_type(opened);
    std::string value(H5Tget_size(type), '\0');
    H5Aread(opened, type, value.data());
    H5Tclose(type);
    H5Aclose(opened);
    return value;
  }
  std::vector<float> floats(const std::string& name) const { return read<float>(name, H5T_NATIVE_FLOAT); }
  std::vector<std::int32_t> integers(const std::string& name) const {
    return read<std::int32_t>(name, H5T_NATIVE_INT32);
  }
  std::vector<std::uint8_t> bytes(const std::string& name) const { return read<std::uint8_t>(name, H5T_NATIVE_UINT8); }

  Index num_in_group(const std::string& name) const {
    const hid_t group = H5Gopen2(file_, name.c_str(), H5P_DEFAULT);
    Index count = 0;
    H5Ovisit2(
        group, H5_INDEX_NAME, H5_ITER_NATIVE,
        [](hid_t, const char*, const H5O_info_t* info, void* data) -> herr_t {
          *static_cast<Index*>(data) += info->type == H5O_TYPE_DATASET;
          return 0;
        },
        &count, H5O_INFO_BASIC);
    H5Gclose(group);
    return count;
  }

 private:
  template <typename T>
  std::vector<T> read(const std::string& name, hid_t type) const {
    const hid_t dataset = H5Dopen2(file_, name.c_str(), H5P_DEFAULT);
    if (dataset < 0) fail("{}: has no dataset {}", path_, name);
    const hid_t space = H5Dget_space(dataset);
    std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    const herr_t status = H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Sclose(space);
    H5Dclose(dataset);
    if (status < 0) fail("{}: cannot read {}", path_, name);
    return values;
  }

  void read_attribute(const std::string& object, const char* name, hid_t type, void* value) const {
    const hid_t attribute = H5Aopen_by_name(file_, object.c_str(), name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0) fail("{}: {} has no attribute {}", path_, object, name);
    H5Aread(attribute, type, value);
    H5Aclose(attribute);
  }

  std::string path_;
  hid_t file_ = -1;
};

}  // namespace switchyard::testing
