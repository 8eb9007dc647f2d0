// Saving in three phases, each agreed on by all ranks before the next:
//   1. rank 0 writes the file's skeleton: groups, datasets with their room on the disk, attributes, checksums;
//   2. every rank writes its slices, at their places in the datasets, which are contiguous: no HDF5, nothing
//   collective;
//   3. rank 0 syncs the file and gives it its name.
// Phase 2 does without HDF5's parallel driver for a reason. MPI-IO of Open MPI 4.1 guards each open file by a semaphore
// named after the file; a process killed meanwhile leaves it locked, and the next run that saves a file of that name on
// that node waits for ever. And HDF5 cannot close a file in parallel that one rank failed to write.
#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <set>

#include <xxhash.h>

#include "core/agreement.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_file.hpp"
#include "io/disk.hpp"
#include "io/h5.hpp"
#include "io/schema.hpp"

namespace switchyard::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWhat = "saving a checkpoint";  // for messages about ranks that do not come
static_assert(std::endian::native == std::endian::little, "checksums are over little-endian bytes");

// Object headers with checksums (from 1.8 on), but none of the flags for concurrent access that a killed process
// leaves.
h5::Handle checkpoint_access() { return h5::file_access(H5F_LIBVER_V18, H5F_LIBVER_V18); }

Index num_checksums(const ArraySlice& slice) { return slice.per_expert ? slice.shape[0] : 1; }

// Checks this rank's list; its hash must then be the same on all ranks.
void check_slices(Ranks& ranks, std::span<const ArraySlice> slices) {
  XXH64_hash_t hash = 0;
  together(ranks, kWhat, [&] {
    CheckpointHeader header;
    std::set<std::string_view> names;
    for (const ArraySlice& slice : slices) {
      const std::string_view name = plain_name(slice.name);
      if (name.empty() || name.ends_with('/') || name == schema::kConfig || !names.insert(name).second)
        fail("array name '{}' is empty, taken or reserved", slice.name);
      for (auto end = name.find('/'); end != name.npos; end = name.find('/', end + 1))
        if (names.contains(name.substr(0, end))) fail("array {} lies below another array", slice.name);
      if (slice.shape.empty() || std::any_of(slice.shape.begin(), slice.shape.end(), [](Index n) { return n < 1; }))
        fail("array {} has shape {}; every extent must be at least 1", slice.name, to_text(slice.shape));
      const bool writes = slice.writes && slice.count > 0;
      if (writes && (slice.first < 0 || slice.first + slice.count > slice.shape[0] || !slice.data))
        fail("array {} has no rows {} to {} to write", slice.name, slice.first, slice.first + slice.count);
      if (writes && !slice.per_expert && slice.count != slice.shape[0])
        fail("array {} is not per expert: one rank writes the whole of it", slice.name);
      header.arrays.push_back({std::string(name), slice.shape, slice.per_expert, {}});
    }
    hash = checksum_of(header);
  });
  std::vector<XXH64_hash_t> hashes(static_cast<std::size_t>(ranks.size()));
  all_gather(ranks, kWhat, &hash, sizeof(hash), hashes.data());
  for (const XXH64_hash_t each : hashes)
    if (each != hashes[0]) throw AgreedError("ranks disagree about the arrays of the checkpoint");
}

struct Checksum {
  Index slot;  // counted over all arrays, one after another
  std::uint64_t sum;
};

// Of what this rank writes.
std::string own_checksums(std::span<const ArraySlice> slices) {
  std::string bytes;
  Index begin = 0;
  for (const ArraySlice& slice : slices) {
    const Index num_parts = !slice.writes || slice.count == 0 ? 0 : slice.per_expert ? slice.count : 1;
    const Index part_elements = num_elements(slice.shape) / num_checksums(slice);
    for (Index part = 0; part < num_parts; ++part) {
      const Checksum checksum{
          begin + (slice.per_expert ? slice.first + part : 0),
          XXH3_64bits(slice.data + part * part_elements, static_cast<std::size_t>(part_elements) * sizeof(float))};
      bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
    }
    begin += num_checksums(slice);
  }
  return bytes;
}

// Every rank sums its own experts' bytes; rank 0 gets the header's records.
std::vector<ArrayRecord> gather_checksums(Ranks& ranks, std::span<const ArraySlice> slices) {
  const std::vector<std::string> gathered = gather_texts(ranks, kWhat, own_checksums(slices));
  std::vector<ArrayRecord> records;
  on_root(ranks, kWhat, [&] {
    std::map<Index, std::vector<std::uint64_t>> sums;  // of each slot, by each rank that would write it
    for (const std::string& bytes : gathered) {
      for (std::size_t at = 0; at < bytes.size(); at += sizeof(Checksum)) {
        Checksum checksum;
        std::memcpy(&checksum, bytes.data() + at, sizeof(checksum));
        sums[checksum.slot].push_back(checksum.sum);
      }
    }
    Index slot = 0;
    for (const ArraySlice& slice : slices) {
      ArrayRecord record{std::string(plain_name(slice.name)), slice.shape, slice.per_expert, {}};
      for (Index part = 0; part < num_checksums(slice); ++part, ++slot) {
        if (sums[slot].size() != 1)
          fail("array {}, expert {}: {} ranks would write it; it must be one", slice.name, part, sums[slot].size());
        record.checksums.push_back(sums[slot][0]);
      }
      records.push_back(std::move(record));
    }
    std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  });
  return records;
}

// Of files, groups and datasets that hold no times: the same content, the same bytes.
h5::Handle timeless(hid_t kind) {
  h5::Handle creation(H5Pcreate(kind), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  return creation;
}

// The groups that an array lies in, where they are not there.
void create_groups(const h5::Handle& file, const std::string& name, const fs::path& path) {
  const h5::Handle creation = timeless(H5P_GROUP_CREATE);
  for (auto end = name.find('/'); end != name.npos; end = name.find('/', end + 1)) {
    const std::string group = name.substr(0, end);
    if (H5Lexists(file, group.c_str(), H5P_DEFAULT) > 0) continue;
    h5::check(hid_t(h5::Handle(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose)), path,
              "create group " + group);
  }
}

// Returns the place of its first byte in the file.
Index create_array(const h5::Handle& file, const ArrayRecord& array, const fs::path& path) {
  create_groups(file, array.name, path);
  const h5::Handle creation = timeless(H5P_DATASET_CREATE);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  const std::vector<hsize_t> extent(array.shape.begin(), array.shape.end());
  const h5::Handle space(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
  const h5::Handle dataset(
      H5Dcreate2(file, array.name.c_str(), H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose);
  h5::check(hid_t(dataset), path, "create array " + array.name);
  const hsize_t num_sums = array.checksums.size();
  const h5::Handle sums_space(array.per_expert ? H5Screate_simple(1, &num_sums, nullptr) : H5Screate(H5S_SCALAR),
                              H5Sclose);
  const h5::Handle attribute(
      H5Acreate2(dataset, schema::kChecksum, H5T_STD_U64LE, sums_space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  h5::check(hid_t(attribute), path, "create the checksum of " + array.name);
  h5::check(H5Awrite(attribute, H5T_NATIVE_UINT64, array.checksums.data()), path,
            "write the checksum of " + array.name);
  const haddr_t place = H5Dget_offset(dataset);
  if (place == HADDR_UNDEF) fail("{}: array {} has no place in the file", path.string(), array.name);
  return static_cast<Index>(place);
}

// More than the file will need, data and metadata.
Index bytes_at_most(const CheckpointHeader& header) {
  Index bytes = 64 * 1024 + 2 * static_cast<Index>(pack(header.info).size());
  for (const ArrayRecord& array : header.arrays)
    bytes += 2048 + 16 * static_cast<Index>(array.checksums.size()) + num_elements(array.shape) * Index{sizeof(float)};
  return bytes;
}

// Places of the arrays by name, in bytes.
using Places = std::map<std::string, Index, std::less<>>;

Places write_contents(const h5::Handle& file, const CheckpointHeader& header, const fs::path& path) {
  h5::write_attribute(file, schema::kFormat, schema::kCheckpointFormat, path);
  h5::write_attribute(file, schema::kSchemaVersion, header.schema_version, path);
  h5::write_attribute(file, schema::kStep, header.info.step, path);
  h5::write_attribute(file, schema::kDigest, header.info.digest, path);
  for (const auto& [name, value] : header.info.attributes) h5::write_attribute(file, name, value, path);
  h5::write_attribute(file, schema::kHeaderChecksum, static_cast<std::int64_t>(checksum_of(header)), path);
  h5::write_text_dataset(file, schema::kConfig, header.info.config, path);
  Places places;
  for (const ArrayRecord& array : header.arrays) places[array.name] = create_array(file, array, path);
  h5::check(H5Fflush(file, H5F_SCOPE_GLOBAL), path, "write to disk");
  return places;
}

Places write_skeleton(const fs::path& path, const CheckpointHeader& header) {
  create_with_space(path, bytes_at_most(header));
  const h5::Handle access = checkpoint_access(), creation = timeless(H5P_FILE_CREATE);
  h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose);
  h5::check(hid_t(file), path, "create the file");
  Places places;
  try {
    places = write_contents(file, header, path);
  } catch (...) {
    h5::abandon(file);
    throw;
  }
  h5::check(file.close(), path, "close the file");
  // Creating the file gave the room back that was reserved above; now it is the file's own.
  reserve_space(path, 0, static_cast<Index>(fs::file_size(path)));
  return places;
}

void write_slices(const fs::path& path, std::span<const ArraySlice> slices, const std::vector<Index>& places) {
  PlacedWriter file(path);
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const ArraySlice& slice = slices[i];
    if (!slice.writes || slice.count == 0) continue;
    const Index row_bytes = num_elements(slice.shape) / slice.shape[0] * Index{sizeof(float)};
    file.write(places[i] + slice.first * row_bytes, slice.data, slice.count * row_bytes, "array " + slice.name);
  }
  file.sync();
}

}  // namespace

void save_checkpoint(Ranks& ranks, const fs::path& path, const CheckpointInfo& info,
                     std::span<const ArraySlice> slices) {
  h5::silence();
  check_slices(ranks, slices);
  const CheckpointHeader header{schema::kCheckpointVersion, info, gather_checksums(ranks, slices)};
  const fs::path temporary = path.string() + ".tmp";
  try {
    std::vector<Index> places(slices.size());  // in the order of slices
    on_root(ranks, kWhat, [&] {
      const Places by_name = write_skeleton(temporary, header);
      for (std::size_t i = 0; i < slices.size(); ++i) places[i] = by_name.find(plain_name(slices[i].name))->second;
    });
    broadcast(ranks, kWhat, places.data(), static_cast<Index>(places.size() * sizeof(Index)), 0);
    together(ranks, kWhat, [&] { write_slices(temporary, slices, places); });
    on_root(ranks, kWhat, [&] {
      sync_file(temporary);
      rename_file(temporary, path);
    });
  } catch (...) {
    std::error_code ignored;
    if (ranks.rank() == 0) fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace switchyard::io
