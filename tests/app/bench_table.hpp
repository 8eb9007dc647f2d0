// What tests of `switchyard bench` read: its file, and what it prints.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "io/h5.hpp"
#include "io/schema.hpp"

namespace switchyard::test {

namespace schema = io::schema;

// A benchmark's file, open.
class Table {
 public:
  explicit Table(const std::filesystem::path& path)
      : file_(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose) {
    EXPECT_TRUE(file_.is_open()) << path;
  }

  std::vector<double> numbers(const schema::Column& column) const {
    const h5::Handle dataset = open(column);
    std::vector<double> values(length(dataset));
    EXPECT_GE(H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << column.path;
    return values;
  }
  std::vector<std::string> texts(const schema::Column& column) const {
    const h5::Handle dataset = open(column);
    const h5::Handle type(H5Dget_type(dataset), H5Tclose);
    const std::size_t width = H5Tget_size(type);
    std::string block(length(dataset) * width, '?');
    EXPECT_GE(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, block.data()), 0) << column.path;
    std::vector<std::string> values;
    for (std::size_t at = 0; at < block.size(); at += width) values.emplace_back(block.substr(at, width).c_str());
    return values;
  }
  std::string attribute(const char* name) const { return h5::read_text(file_, name).value_or(""); }
  std::string config() const { return h5::read_text_dataset(file_, schema::kConfig).value_or(""); }

 private:
  h5::Handle open(const schema::Column& column) const {
    h5::Handle dataset(H5Dopen2(file_, column.path, H5P_DEFAULT), H5Dclose);
    EXPECT_TRUE(dataset.is_open()) << column.path;
    EXPECT_EQ(h5::read_text(dataset, schema::kUnits), column.units) << column.path;
    return dataset;
  }
  static std::size_t length(hid_t dataset) {
    const std::vector<Index> shape = h5::shape_of(dataset);
    EXPECT_EQ(shape.size(), 1u);
    return shape.empty() ? 0 : static_cast<std::size_t>(shape[0]);
  }

  h5::Handle file_;
};

// The first line describes the model, at whatever length.
inline void expect_at_most_columns(const std::string& text, std::size_t columns) {
  std::istringstream lines(text);
  std::string line;
  for (std::getline(lines, line); std::getline(lines, line);) EXPECT_LE(line.size(), columns) << line;
}

inline void expect_positive(const std::vector<double>& values, std::size_t count, const char* name) {
  EXPECT_EQ(values.size(), count) << name;
  for (double value : values) EXPECT_GT(value, 0) << name;
}

}  // namespace switchyard::test
