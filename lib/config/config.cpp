#include "config/config.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include "config/keys.hpp"
#include "core/error.hpp"
#include "core/router_names.hpp"

namespace switchyard {

namespace {

std::string section_of(std::string_view name) { return std::string(name.substr(0, name.find('.'))); }

std::vector<std::string> sections_of(const std::vector<Key>& keys) {
  std::vector<std::string> sections;
  for (const Key& key : keys)
    if (sections.empty() || sections.back() != section_of(key.name)) sections.push_back(section_of(key.name));
  return sections;
}

// "[name]" -> name
std::string read_section(const std::vector<Key>& keys, std::string_view line, const std::string& where) {
  const std::vector<std::string> sections = sections_of(keys);
  if (line.back() != ']')
    fail_usage("{}: found {}: {}.", where, in_quotes(line),
               line.find(']') == line.npos ? "the ] after the section's name is missing"
                                           : "nothing but a # and a comment may follow the ] of a section");
  const std::string name(trimmed(line.substr(1, line.size() - 2)));
  if (name == "study")
    fail_usage("{}: [study] makes this file a study of many runs: give it to `switchyard study`.", where);
  if (std::find(sections.begin(), sections.end(), name) == sections.end())
    fail_usage("{}: unknown section {}{} Allowed are [{}].", where, in_quotes(line), suggestion(name, sections),
               joined(sections, "] ["));
  return name;
}

// One file's text over the values that the keys point at; returns the keys that it has.
std::set<std::string> apply_text(const std::vector<Key>& keys, const std::string& text, const std::string& source) {
  std::istringstream stream(text);
  std::string section, raw;
  std::map<std::string, int> line_of;  // of each key met so far
  for (int number = 1; std::getline(stream, raw); ++number) {
    const std::string where = fmt::format("{}:{}", source, number);
    const std::string_view line = trimmed(std::string_view(raw).substr(0, raw.find('#')));
    if (line.empty()) continue;
    if (line.front() == '[') {
      section = read_section(keys, line, where);
      continue;
    }
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos)
      fail_usage("{}: found {}: a line holds key = value, [section] or # and a comment.", where, in_quotes(line));
    const std::string own_name(trimmed(line.substr(0, equals)));
    const std::string name = section.empty() ? own_name : section + "." + own_name;
    const Key& key = find_key(keys, name, where);
    const auto [earlier, is_new] = line_of.emplace(name, number);
    if (!is_new)
      fail_usage("{}: {} is given a second time (first in line {}): keep one of them.", where, name, earlier->second);
    set_value(key, trimmed(line.substr(equals + 1)), where);
  }
  std::set<std::string> names;
  for (const auto& [name, line] : line_of) names.insert(name);
  return names;
}

// Breaks at spaces so that `indent` and text fit `width`.
std::string wrapped(const std::string& text, int indent, int width) {
  std::istringstream words(text);
  std::string result, line, word;
  const std::size_t room = static_cast<std::size_t>(std::max(20, width - indent));
  const auto flush = [&] {
    result += std::string(static_cast<std::size_t>(indent), ' ') + line + "\n";
    line.clear();
  };
  while (words >> word) {
    if (!line.empty() && line.size() + 1 + word.size() > room) flush();
    line += (line.empty() ? "" : " ") + word;
  }
  if (!line.empty()) flush();
  return result;
}

// Whether training goes by evaluations.
bool evaluations_steer(const Config& config) { return config.train.patience > 0 || config.train.plateau > 0; }

// Whether a step depends on when the run ends: by the learning rate's schedule, or by the evaluation at the end, where
// none is due then.
bool follows_length(const Config& config) {
  if (config.train.schedule == "cosine" && config.train.schedule_epochs == 0) return true;
  return evaluations_steer(config) && (config.run.eval_every != 1 || config.run.steps > 0);
}

}  // namespace

std::string read_config_file(const std::string& path) {
  if (path.empty()) fail_usage("--config: the name is empty: give a configuration file.");
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    fail_usage("{}: this configuration file is a folder: give a file to --config.", path);
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_usage("{}: cannot read this configuration file: {}.", path, std::strerror(errno));
  constexpr std::size_t kMostBytes = 4 << 20, kPiece = 64 << 10;
  std::string text;
  while (file && text.size() <= kMostBytes) {
    const std::size_t size = text.size();
    text.resize(size + kPiece);
    file.read(text.data() + size, kPiece);
    text.resize(size + static_cast<std::size_t>(file.gcount()));
  }
  if (text.size() > kMostBytes) fail_usage("{}: goes on after {} bytes: give a configuration file.", path, kMostBytes);
  if (file.bad()) fail_usage("{}: reading this configuration file failed: {}.", path, std::strerror(errno));
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // some editors begin UTF-8 with it
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

Config load_config(const std::vector<std::string>& files,
                   const std::vector<std::pair<std::string, std::string>>& overrides, Config config,
                   std::set<std::string>* given) {
  const std::vector<Key> keys = keys_of(config);
  for (const std::string& path : files) {
    const std::set<std::string> names = apply_text(keys, read_config_file(path), path);
    if (given) given->insert(names.begin(), names.end());
  }
  for (const auto& [name, value] : overrides) set_value(find_key(keys, name, "command line"), value, "command line");
  return config;
}

Config parse_text(const std::string& text, const std::string& source, std::set<std::string>* given) {
  Config config;
  const std::set<std::string> names = apply_text(keys_of(config), text, source);
  if (given) given->insert(names.begin(), names.end());
  return config;
}

void set_older_values(Config& config, const std::set<std::string>& given) {
  Config::Ffn& ffn = config.ffn;
  if (ffn.kind != "moe") return;
  if (!given.contains("ffn.noise_floor") && ffn.router == "noisy_top_k") ffn.noise_floor = 0;
  const bool chooses = takes_top_k(ffn.router) && ffn.top_k > 1 && (ffn.capacity_train > 0 || ffn.capacity_eval > 0);
  if (!given.contains("ffn.capacity_order") && chooses) ffn.capacity_order = "token";
}

Config parse_stored(const std::string& text, const std::string& source) {
  std::set<std::string> given;
  Config config = parse_text(text, source, &given);
  set_older_values(config, given);
  return config;
}

std::string to_text(const Config& config) {
  Config copy = config;
  std::string text, section;
  for (const Key& key : keys_of(copy)) {
    if (section_of(key.name) != section) {
      text += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", section_of(key.name));
      section = section_of(key.name);
    }
    const std::string value = value_text(key);
    text += fmt::format("{} ={}{}\n", key.name + section.size() + 1, value.empty() ? "" : " ", value);
  }
  return text;
}

std::string help_text(int width) {
  Config defaults;
  std::string text, section;
  for (const Key& key : keys_of(defaults)) {
    if (section_of(key.name) != section) {
      section = section_of(key.name);
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    const std::string value = value_text(key);
    text += fmt::format("  --{} {}\n", key.name, value.empty() ? "(empty)" : value);
    text += wrapped(key.doc, 6, width);
    text += wrapped("allowed: " + allowed_text(key), 6, width);
  }
  return text;
}

std::vector<std::string> result_differences(const Config& before, const Config& after) {
  Config copy_before = before, copy_after = after;
  const std::vector<Key> keys_before = keys_of(copy_before), keys_after = keys_of(copy_after);
  const bool length_matters = follows_length(before) || follows_length(after);
  const bool evaluations_matter = evaluations_steer(before) || evaluations_steer(after);
  std::vector<std::string> differences;
  for (std::size_t i = 0; i < keys_before.size(); ++i) {
    const std::string_view name = keys_before[i].name;
    if (keys_before[i].effect != Effect::kResult && !(evaluations_matter && name == "run.eval_every")) continue;
    if (!length_matters && (name == "run.epochs" || name == "run.steps")) continue;
    const std::string old_value = value_text(keys_before[i]), new_value = value_text(keys_after[i]);
    if (old_value != new_value) differences.push_back(fmt::format("{}: {} -> {}", name, old_value, new_value));
  }
  return differences;
}

}  // namespace switchyard
