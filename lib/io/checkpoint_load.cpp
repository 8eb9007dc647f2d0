// Loading. Each rank reads its own experts through a file handle of its own: reading needs no agreement, so no rank
// can leave another inside a collective call. Whole arrays are read once, by rank 0, and broadcast.
#include <algorithm>
#include <memory>
#include <set>

#include <xxhash.h>

#include "core/agreement.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_file.hpp"
#include "io/schema.hpp"

namespace switchyard::io {
namespace {

namespace fs = std::filesystem;

std::string_view top_group(std::string_view name) { return name.substr(0, name.find('/')); }

// Each wanted array is in the file with its shape, and each array of a wanted group is wanted.
void match(const CheckpointHeader& header, std::span<const ArraySlice> slices, const fs::path& path) {
  std::set<std::string_view> wanted, groups;
  for (const ArraySlice& slice : slices) {
    const std::string_view name = plain_name(slice.name);
    wanted.insert(name);
    groups.insert(top_group(name));
    const auto found =
        std::find_if(header.arrays.begin(), header.arrays.end(), [&](const auto& a) { return a.name == name; });
    if (found == header.arrays.end())
      fail("{}: holds no array {} of shape {}; it was written with another model", path.string(), slice.name,
           to_text(slice.shape));
    if (found->shape != slice.shape || found->per_expert != slice.per_expert)
      fail("{}: array {} has shape {}{}, wanted is {}{}; it was written with another model", path.string(), slice.name,
           to_text(found->shape), found->per_expert ? " by expert" : "", to_text(slice.shape),
           slice.per_expert ? " by expert" : "");
  }
  for (const ArrayRecord& array : header.arrays)
    if (groups.contains(top_group(array.name)) && !wanted.contains(array.name))
      fail("{}: holds array {} of shape {}, which is not wanted; it was written with another model", path.string(),
           array.name, to_text(array.shape));
}

[[noreturn]] void fail_checksum(const fs::path& path, const std::string& name, bool per_expert, Index expert) {
  fail("{}: is damaged: array {}{} does not match its checksum", path.string(), name,
       per_expert ? fmt::format(", expert {},", expert) : "");
}

// Reads this rank's rows and compares their checksums.
void read_slice(const h5::Handle& file, const ArraySlice& slice, const fs::path& path) {
  if (slice.count == 0) return;
  const ArrayRecord record = read_record(file, std::string(plain_name(slice.name)), path);
  const h5::Handle dataset = h5::open_dataset(file, slice.name);
  const RowSelection rows(slice.shape, slice.first, slice.count);
  h5::check_read(H5Dread(dataset, H5T_NATIVE_FLOAT, rows.memory, rows.file, H5P_DEFAULT, slice.data), path,
                 "read array " + slice.name);
  const Index num_parts = slice.per_expert ? slice.count : 1;
  const Index part_elements = num_elements(slice.shape) / static_cast<Index>(record.checksums.size());
  for (Index part = 0; part < num_parts; ++part)
    if (!matches(XXH3_64bits(slice.data + part * part_elements, part_elements * sizeof(float)),
                 record.checksums[slice.per_expert ? slice.first + part : 0]))
      fail_checksum(path, record.name, slice.per_expert, slice.first + part);
}

void check_slices(std::span<const ArraySlice> slices) {
  for (const ArraySlice& slice : slices) {
    if (slice.shape.empty()) fail("array {} has no shape", slice.name);
    const bool inside = slice.first >= 0 && slice.count >= 0 && slice.first + slice.count <= slice.shape[0];
    if (!inside || (!slice.per_expert && slice.count != slice.shape[0]) || (slice.count > 0 && !slice.data))
      fail("array {}: cannot load rows {} to {} of shape {}{}", slice.name, slice.first, slice.first + slice.count,
           to_text(slice.shape), slice.per_expert ? "" : ", which loads as a whole");
  }
}

// Reads a whole array, a few megabytes at a time, and compares its checksums.
void verify_array(const h5::Handle& file, const ArrayRecord& array, const fs::path& path) {
  const h5::Handle dataset = h5::open_dataset(file, array.name);
  const Index row_elements = num_elements(array.shape) / array.shape[0];
  const Index part_rows = array.per_expert ? 1 : array.shape[0];
  constexpr Index kBlockElements = Index{1} << 20;
  const Index block_rows = std::clamp<Index>(kBlockElements / row_elements, 1, part_rows);
  std::vector<float> block(static_cast<std::size_t>(block_rows * row_elements));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  for (std::size_t part = 0; part < array.checksums.size(); ++part) {
    XXH3_64bits_reset(state.get());
    const Index begin = static_cast<Index>(part) * part_rows, end = begin + part_rows;
    for (Index row = begin; row < end; row += block_rows) {
      const Index count = std::min(block_rows, end - row);
      const RowSelection rows(array.shape, row, count);
      h5::check_read(H5Dread(dataset, H5T_NATIVE_FLOAT, rows.memory, rows.file, H5P_DEFAULT, block.data()), path,
                     "read array " + array.name);
      XXH3_64bits_update(state.get(), block.data(), count * row_elements * sizeof(float));
    }
    if (!matches(XXH3_64bits_digest(state.get()), array.checksums[part]))
      fail_checksum(path, array.name, array.per_expert, part);
  }
}

}  // namespace

CheckpointInfo load_checkpoint(Ranks& ranks, const fs::path& path, std::span<const ArraySlice> slices) {
  constexpr std::string_view kWhat = "loading a checkpoint";
  h5::silence();
  std::string packed;
  on_root(ranks, kWhat, [&] {
    const CheckpointHeader header = read_checkpoint_header(open_checkpoint(path), path);
    match(header, slices, path);
    packed = pack(header.info);
  });
  packed = broadcast_text(ranks, kWhat, packed);
  together(ranks, kWhat, [&] {
    check_slices(slices);
    const h5::ReadFile file = open_checkpoint(path);
    for (const ArraySlice& slice : slices)
      if (slice.per_expert || ranks.rank() == 0) read_slice(file, slice, path);
  });
  for (const ArraySlice& slice : slices)
    if (!slice.per_expert) broadcast(ranks, kWhat, slice.data, num_elements(slice.shape) * Index{sizeof(float)}, 0);
  return unpack(packed);
}

CheckpointInfo read_checkpoint_info(const fs::path& path) {
  return read_checkpoint_header(open_checkpoint(path), path).info;
}

CheckpointSummary describe_checkpoint(const fs::path& path) {
  CheckpointSummary summary;
  try {
    const h5::ReadFile file = open_checkpoint(path);
    const CheckpointHeader header = read_checkpoint_header(file, path);
    summary.schema_version = header.schema_version;
    summary.info = header.info;
    for (const ArrayRecord& array : header.arrays) {
      summary.arrays.push_back({array.name, array.shape, array.per_expert, false});
      try {
        verify_array(file, array, path);
        summary.arrays.back().verified = true;
      } catch (const Error& error) {
        if (summary.problem.empty()) summary.problem = error.what();
      }
    }
  } catch (const std::bad_alloc&) {  // no fault of the file
    fail("{}: there is not enough memory to read it: use a machine with more", path.string());
  } catch (const std::exception& error) {
    summary.problem = error.what();
  }
  summary.verifies = summary.problem.empty();
  return summary;
}

}  // namespace switchyard::io
