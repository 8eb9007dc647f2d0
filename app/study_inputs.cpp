#include "app/study_inputs.hpp"

#include <sys/stat.h>
#include <xxhash.h>

#include <fstream>
#include <sstream>

#include "app/session.hpp"
#include "app/study_folder.hpp"
#include "core/error.hpp"
#include "core/files.hpp"
#include "io/checkpoint.hpp"
#include "io/schema.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr const char* kHeading =
    "# What data held when they were last read: options and the state of files, hashed; an attribute; its value\n";

// Length, times and inode of each file; empty where one is not there.
std::string state_of(const std::vector<std::string>& files) {
  std::string text;
  for (const std::string& file : files) {
    struct stat status {};
    if (stat(file.c_str(), &status) != 0) return "";
    text += fmt::format("{} {}.{:09} {}.{:09} {} {}\n", status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
                        status.st_ctim.tv_sec, status.st_ctim.tv_nsec, status.st_dev, status.st_ino);
  }
  return text;
}

// The files that hold the data; none where they are not there.
std::vector<std::string> files_of(const DataOptions& options) {
  try {
    return data_files(options);
  } catch (const Error&) {
    return {};
  }
}

// A run that began with another state of train.start's file.
std::string other_start(const Config& config, const Attributes& results) {
  const std::string& file = config.train.start;
  std::error_code ignored;
  if (file.empty() || !fs::is_regular_file(file, ignored)) return "";
  const auto found = results.find(io::schema::kOrigin);
  const std::string before = found == results.end() ? "not recorded" : found->second;
  try {
    const std::string now = origin_of(file, io::read_checkpoint_info(file));
    return tells_same_origin(before, now) ? "" : fmt::format("train.start: {} -> {}", before, now);
  } catch (const Error&) {
    return "";
  }
}

}  // namespace

StudyInputs::StudyInputs(const fs::path& study_folder) : file_(study_folder / "study.data") { read_memory(); }

std::string StudyInputs::differences(const Config& config, const Attributes& results) {
  const Attributes* const now = data_now(config);
  const std::string other = now ? other_values(results, *now) : "";
  const std::string start = other_start(config, results);
  return other + (other.empty() || start.empty() ? "" : ", ") + start;
}

const Attributes* StudyInputs::data_now(const Config& config) {
  const DataOptions options = data_options(config);
  const std::string state = state_of(files_of(options));
  if (state.empty()) return nullptr;
  const std::string text =
      fmt::format("{} {} {} {}\n", options.kind, options.limit, options.validation, options.validation_seed) + state;
  const std::string key = fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
  const auto found = known_.find(key);
  if (found != known_.end()) return &found->second;
  if (unreadable_.contains(key)) return nullptr;
  try {
    known_[key] = data_attributes(load_dataset(options));
  } catch (const Error& error) {
    unreadable_.insert(key);
    fmt::print(stderr, "switchyard: warning: whether runs were made with these data cannot be told: {}\n",
               error.what());
    return nullptr;
  }
  write_memory();
  return &known_[key];
}

void StudyInputs::read_memory() {
  if (!why_no_file(file_).empty()) return;
  std::ifstream file(file_);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key, name, value;
    if (line.starts_with('#') || !(words >> key >> name) || !std::getline(words >> std::ws, value)) continue;
    known_[key][name] = value;
  }
}

// Where the folder cannot be written, the next command reads the data again.
void StudyInputs::write_memory() const {
  std::string text = kHeading;
  for (const auto& [key, attributes] : known_)
    for (const auto& [name, value] : attributes) text += fmt::format("{} {} {}\n", key, name, value);
  try {
    write_text(file_, text);
  } catch (const std::exception&) {
  }
}

}  // namespace switchyard
