#include "io/growing_column.hpp"

#include <algorithm>

namespace switchyard::io {
namespace {

constexpr Index kMaxChunkRows = 1024;        // 8 KB of a column of numbers
constexpr Index kMaxChunkBytes = 64 * 1024;  // of routing/load

Index chunk_rows(const ColumnLayout& column) {
  return std::clamp<Index>(kMaxChunkBytes / column.row_bytes(), 1, kMaxChunkRows);
}

}  // namespace

GrowingColumn::GrowingColumn(const h5::Handle& file, ColumnLayout layout, const std::filesystem::path& path)
    : layout_(std::move(layout)), path_(path) {
  std::vector<hsize_t> extent = {0}, most = {H5S_UNLIMITED}, chunk = {static_cast<hsize_t>(chunk_rows(layout_))};
  for (auto* sizes : {&extent, &most, &chunk})
    sizes->insert(sizes->end(), layout_.row_shape.begin(), layout_.row_shape.end());
  const int rank = static_cast<int>(extent.size());
  const h5::Handle space(H5Screate_simple(rank, extent.data(), most.data()), H5Sclose);
  const h5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose), links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_chunk(creation, rank, chunk.data());
  H5Pset_obj_track_times(creation, false);
  H5Pset_create_intermediate_group(links, 1);
  const char* name = layout_.column.path;
  dataset_ = h5::Handle(H5Dcreate2(file, name, layout_.type, space, links, creation, H5P_DEFAULT), H5Dclose);
  h5::check(hid_t(dataset_), path, std::string("create ") + name);
  h5::write_attribute(dataset_, schema::kUnits, layout_.column.units, path);
}

void GrowingColumn::append(const void* rows, Index count) {
  std::vector<hsize_t> extent = {static_cast<hsize_t>(num_rows_ + count)};
  extent.insert(extent.end(), layout_.row_shape.begin(), layout_.row_shape.end());
  const std::string action = std::string("append to ") + layout_.column.path;
  h5::check(H5Dset_extent(dataset_, extent.data()), path_, action);
  const RowsInDataset selection(dataset_, layout_, num_rows_, count);
  h5::check(H5Dwrite(dataset_, layout_.type, selection.memory, selection.file, H5P_DEFAULT, rows), path_, action);
  num_rows_ += count;
}

Index bytes_at_most(const TableLayout& table, Index count) {
  if (count == 0) return 0;
  Index bytes = kMetadataBytes;
  for (const ColumnLayout& column : table)
    bytes += (count / chunk_rows(column) + 2) * chunk_rows(column) * column.row_bytes();
  return bytes;
}

}  // namespace switchyard::io
