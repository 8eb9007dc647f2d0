// A dataset of results while it grows.
#pragma once

#include <filesystem>

#include "io/results_file.hpp"

namespace switchyard::io {

inline constexpr Index kMetadataBytes = 128 * 1024;  // more than a batch of rows adds to HDF5's own tables

// What `count` more rows of a table may take on the disk.
Index bytes_at_most(const TableLayout& table, Index count);

class GrowingColumn {
 public:
  // Creates the dataset, without rows, and its units.
  GrowingColumn(const h5::Handle& file, ColumnLayout layout, const std::filesystem::path& path);

  const ColumnLayout& layout() const { return layout_; }

  // `rows` as the layout's type and row shape say.
  void append(const void* rows, Index count);

 private:
  ColumnLayout layout_;
  std::filesystem::path path_;  // for messages
  h5::Handle dataset_;
  Index num_rows_ = 0;
};

}  // namespace switchyard::io
