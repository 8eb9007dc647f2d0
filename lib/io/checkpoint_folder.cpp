#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "core/error.hpp"
#include "io/checkpoint.hpp"

namespace switchyard::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-", kSuffix = ".h5", kTemporarySuffix = ".h5.tmp";

// The step in a file's name; nullopt where the name is not one that checkpoint_path gives.
std::optional<Index> step_in(std::string_view name, std::string_view suffix) {
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix) || name.size() < kPrefix.size() + suffix.size() + 8)
    return std::nullopt;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(suffix.size());
  Index step = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

// Files of such names with their steps, fewest first.
std::vector<std::pair<Index, fs::path>> list(const fs::path& folder, std::string_view suffix) {
  std::vector<std::pair<Index, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (const auto step = step_in(entry->path().filename().string(), suffix)) found.emplace_back(*step, entry->path());
  if (error && error != std::errc::no_such_file_or_directory)
    fail("{}: cannot list the checkpoints in it ({}): see to it that it is a folder that can be read", folder.string(),
         error.message());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, Index step) {
  return folder / fmt::format("{}{:08}{}", kPrefix, step, kSuffix);
}

std::optional<Index> step_in_name(const fs::path& path) { return step_in(path.filename().string(), kSuffix); }

std::vector<fs::path> list_checkpoints(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (auto& [step, path] : list(folder, kSuffix)) paths.push_back(std::move(path));
  return paths;
}

std::optional<fs::path> newest_valid_checkpoint(const fs::path& folder, std::vector<std::string>& warnings) {
  std::vector<fs::path> paths = list_checkpoints(folder);
  for (; !paths.empty(); paths.pop_back()) {
    const CheckpointSummary summary = describe_checkpoint(paths.back());
    if (summary.verifies) return paths.back();
    warnings.push_back(summary.problem + "; passed over");
  }
  return std::nullopt;
}

void remove_old_checkpoints(const fs::path& folder, Index step, Index keep) {
  std::error_code ignored;
  Index num_kept = 0;
  auto checkpoints = list(folder, kSuffix);
  for (; !checkpoints.empty(); checkpoints.pop_back()) {
    const auto& [its_step, path] = checkpoints.back();
    if (its_step > step || num_kept >= std::max<Index>(keep, 1))
      fs::remove(path, ignored);
    else
      ++num_kept;
  }
  for (const auto& [its_step, path] : list(folder, kTemporarySuffix)) fs::remove(path, ignored);
}

}  // namespace switchyard::io
