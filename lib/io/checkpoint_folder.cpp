#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "core/agreement.hpp"
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

// Files of such names, fewest steps first.
std::vector<fs::path> list(const fs::path& folder, std::string_view suffix) {
  std::vector<std::pair<Index, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (const auto step = step_in(entry->path().filename().string(), suffix)) found.emplace_back(*step, entry->path());
  std::sort(found.begin(), found.end());
  std::vector<fs::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, Index step) {
  return folder / fmt::format("{}{:08}{}", kPrefix, step, kSuffix);
}

std::vector<fs::path> list_checkpoints(const fs::path& folder) { return list(folder, kSuffix); }

std::optional<fs::path> newest_valid_checkpoint(const fs::path& folder, std::vector<std::string>& warnings) {
  std::vector<fs::path> paths = list_checkpoints(folder);
  for (; !paths.empty(); paths.pop_back()) {
    const CheckpointSummary summary = describe_checkpoint(paths.back());
    if (summary.verifies) return paths.back();
    warnings.push_back(summary.problem + "; passed over");
  }
  return std::nullopt;
}

std::optional<fs::path> newest_valid_checkpoint(Ranks& ranks, const fs::path& folder,
                                                std::vector<std::string>& warnings) {
  std::string found;
  on_root(ranks, "search for a checkpoint", [&] {
    if (const auto path = newest_valid_checkpoint(folder, warnings)) found = path->string();
  });
  found = broadcast_text(ranks, "search for a checkpoint", found);
  return found.empty() ? std::nullopt : std::optional<fs::path>(found);
}

void remove_old_checkpoints(const fs::path& folder, Index keep) {
  std::error_code ignored;
  std::vector<fs::path> paths = list_checkpoints(folder);
  paths.resize(std::max<std::size_t>(paths.size(), std::max<Index>(keep, 1)) - std::max<Index>(keep, 1));
  for (const fs::path& path : paths) fs::remove(path, ignored);
  for (const fs::path& path : list(folder, kTemporarySuffix)) fs::remove(path, ignored);
}

}  // namespace switchyard::io
