// Checkpoints: named float32 arrays and a few values in one HDF5 file, written by all ranks together, loaded by any
// number of ranks in any slices. Names of files, attributes and datasets: schema.hpp.
//
// The same content gives the same bytes, whoever writes which slice. Every byte of content is under a checksum
// (XXH3-64): a file that was cut short or has a bit flipped is refused, never half loaded.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/ranks.hpp"
#include "core/types.hpp"

namespace switchyard::io {

// One array, and this rank's part of it. Every rank lists every array, in the same order.
struct ArraySlice {
  std::string name;          // dataset path; groups are created for each '/'
  std::vector<Index> shape;  // of the whole array
  bool per_expert = false;   // dimension 0 is the expert, one checksum each; otherwise one checksum for the whole
  Index first = 0;           // this rank's part along dimension 0: [first, first + count);
  Index count = 0;           // without per_expert always the whole array
  float* data = nullptr;     // (count, rest of shape), host memory; saving only reads it
  bool writes = true;        // saving: exactly one rank writes each expert, or the whole array
};

struct CheckpointInfo {
  Index step = 0;
  std::string config;
  std::string digest;                             // may be empty
  std::map<std::string, std::string> attributes;  // anything else; at most 60,000 bytes each
};

// Collective. Writes PATH.tmp, syncs it to disk and renames it, so that PATH is whole or is not there. On a failure
// anywhere every rank throws the same AgreedError, rank 0 removes PATH.tmp, and older files are as they were. `info`
// counts on rank 0.
void save_checkpoint(Ranks& ranks, const std::filesystem::path& path, const CheckpointInfo& info,
                     std::span<const ArraySlice> slices);

// Collective. Fills each slice and verifies what it reads; on a failure every rank throws the same AgreedError. Names
// and shapes must be the file's own. A top-level group may be left out as a whole (so `parameters/...` loads without
// `optimizer/...`), but not a part of one.
CheckpointInfo load_checkpoint(Ranks& ranks, const std::filesystem::path& path, std::span<const ArraySlice> slices);

// On this rank alone. What a checkpoint says of itself, its header verified but none of its arrays.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& path);

struct ArraySummary {
  std::string name;
  std::vector<Index> shape;
  bool per_expert = false;
  bool verified = false;
};

struct CheckpointSummary {
  bool verifies = false;
  std::string problem;  // what is wrong with the file, where it does not verify
  Index schema_version = 0;
  CheckpointInfo info;
  std::vector<ArraySummary> arrays;
};

// Reads the whole file. Damage is reported, not thrown.
CheckpointSummary describe_checkpoint(const std::filesystem::path& path);

// FOLDER/checkpoint-00000123.h5
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, Index step);

// The step in a name that checkpoint_path() gives; nullopt for others, which list_checkpoints() does not list.
std::optional<Index> step_in_name(const std::filesystem::path& path);

// Checkpoints in a folder by their names, oldest first. No folder, no checkpoints; fails where it cannot be listed.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& folder);

// The checkpoint with the most steps that verifies; a warning for each that was passed over.
std::optional<std::filesystem::path> newest_valid_checkpoint(const std::filesystem::path& folder,
                                                             std::vector<std::string>& warnings);

// After the checkpoint of `step` was saved: keeps the newest `keep` of those up to it (itself at least), and removes
// older ones, later ones, which a run that resumed before them left behind, and temporary files that a killed save
// left. Other files are left alone. Call it on one rank, while none saves.
void remove_old_checkpoints(const std::filesystem::path& folder, Index step, Index keep);

}  // namespace switchyard::io
