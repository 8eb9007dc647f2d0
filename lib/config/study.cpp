#include "config/study.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include <xxhash.h>

#include "config/keys.hpp"
#include "config/study_rules.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

using Overrides = std::vector<std::pair<std::string, std::string>>;

// Each once, where it stands first: of keys that move together one may have a value many times.
std::vector<std::string> without_repeats(const std::vector<std::string>& values) {
  std::vector<std::string> kept;
  std::set<std::string> there;
  for (const std::string& value : values)
    if (there.insert(value).second) kept.push_back(value);
  return kept;
}

// "1 | 2 | 3"; of many the first and the last.
std::string shortened(std::vector<std::string> values) {
  constexpr std::size_t kMost = 40;
  if (values.size() > kMost) {
    values.erase(values.begin() + kMost - 1, values.end() - 1);
    values.insert(values.end() - 1, "...");
  }
  return joined(values, " | ");
}

// A key given from outside chooses among its axis's values, or else sets the value of all runs, whatever rules say.
void apply_overrides(const Overrides& overrides, StudyRules& rules, StudyPoint& base) {
  const std::string where = "command line";
  for (const auto& [key, text] : overrides) {
    bool has_axis = false;
    for (Axis& axis : rules.axes) {
      const auto found = std::find(axis.keys.begin(), axis.keys.end(), key);
      if (found == axis.keys.end()) continue;
      has_axis = true;
      const auto k = static_cast<std::size_t>(found - axis.keys.begin());
      std::vector<std::string> there;
      for (const auto& values : axis.values) there.push_back(values[k]);
      const std::set<std::string> allowed(there.begin(), there.end());
      const std::vector<std::string> asked_for = parse_values(key, text, where);
      const std::set<std::string> wanted(asked_for.begin(), asked_for.end());
      for (const std::string& value : asked_for)
        if (!allowed.contains(value))
          fail_usage("{}: {} = {} is none of the values of its axis ({}): allowed: {}.", where, key, in_quotes(value),
                     axis.where, shortened(without_repeats(there)));
      std::erase_if(axis.values, [&](const auto& values) { return !wanted.contains(values[k]); });
    }
    if (has_axis) continue;
    base.set(key, text, where);
    const auto is_given = [&name = key](const auto& value) { return value.first == name; };  // Clang 14: no bare `key`
    for (TieRule& rule : rules.ties) std::erase_if(rule.values, is_given);
    std::erase_if(rules.ties, [](const TieRule& rule) { return rule.values.empty(); });
  }
}

// "experts4", "switch", "noflip": one part of a run's name.
std::string name_part(const std::string& key, const StudyPoint& point, const std::vector<std::string>& axis_keys) {
  const auto last = [](const std::string& name) { return name.substr(name.rfind('.') + 1); };
  const auto same_last = [&](const std::string& other) { return last(other) == last(key); };
  std::string label = std::count_if(axis_keys.begin(), axis_keys.end(), same_last) > 1 ? key : last(key);
  std::string part = label + point.get(key);
  if (key != "ranks") {
    StudyPoint copy = point;
    const std::vector<Key> keys = keys_of(copy.config);
    const Key& found = find_key(keys, key, "study");
    if (std::holds_alternative<std::string*>(found.value)) part = point.get(key);
    if (const auto* const* flag = std::get_if<bool*>(&found.value)) part = (**flag ? "" : "no") + label;
  }
  for (char& letter : part)
    if (!std::isalnum(static_cast<unsigned char>(letter)) && letter != '.' && letter != '_' && letter != '+')
      letter = '_';
  return part.empty() ? "none" : part;
}

std::string name_of(const StudyPoint& point, const std::vector<std::string>& axis_keys) {
  std::vector<std::string> parts;
  for (const std::string& key : axis_keys) parts.push_back(name_part(key, point, axis_keys));
  return parts.empty() ? "run" : joined(parts, "-");
}

// Every combination of the axes' values, the first axis slowest.
std::vector<StudyPoint> combinations(const StudyRules& rules, const StudyPoint& base, const std::string& source) {
  std::vector<StudyPoint> points = {base};
  for (const Axis& axis : rules.axes) {
    if (points.size() * axis.values.size() > kMostRuns)
      fail_usage("{}: the axes give more than {} runs: shorten an axis.", source, kMostRuns);
    std::vector<StudyPoint> longer;
    for (const StudyPoint& point : points)
      for (const auto& values : axis.values) {
        longer.push_back(point);
        for (std::size_t k = 0; k < values.size(); ++k) longer.back().set(axis.keys[k], values[k], axis.where);
      }
    points = std::move(longer);
  }
  return points;
}

void check_run(const StudyRun& run, const std::string& source) {
  try {
    validate(run.config);
    check_ranks(run.config, run.ranks);
  } catch (const Error& error) {
    fail_usage("{}: its run {}: {} Change an axis, or leave the combination out with exclude.", source, run.name,
               error.what());
  }
}

// What makes a run's result, as (key, value).
std::vector<std::pair<std::string, std::string>> identifying_values(const Config& config, int ranks,
                                                                    const std::vector<std::string>& axis_keys) {
  const auto varies = [&](const std::string& name) {
    return std::find(axis_keys.begin(), axis_keys.end(), name) != axis_keys.end();
  };
  Config copy = config;
  std::vector<std::pair<std::string, std::string>> values;
  for (const Key& key : keys_of(copy))
    if (key.effect != Effect::kNone || varies(key.name)) values.emplace_back(key.name, value_text(key));
  if (varies("ranks")) values.emplace_back("ranks", std::to_string(ranks));
  return values;
}

// The study as it is after the command line.
std::string text_of(const Config& base, const StudyRules& rules, const std::string& name) {
  std::string text = to_text(base) + fmt::format("\n[study]\nname = {}\nranks = {}\n", name, rules.ranks);
  for (const Axis& axis : rules.axes) {
    std::vector<std::string> points;
    for (const auto& values : axis.values) points.push_back(joined(values, " & "));
    text += fmt::format("axis = {}: {}\n", joined(axis.keys, ", "), joined(points, ", "));
  }
  for (const TieRule& rule : rules.ties) {
    std::vector<std::string> values;
    for (const auto& [key, value] : rule.values) values.push_back(fmt::format("{}: {}", key, value));
    text += fmt::format("set = {} if {}\n", joined(values, "; "), rule.condition_text);
  }
  return text + rules.exclusion_text;
}

}  // namespace

std::string Study::folder() const { return runs.at(0).config.run.out; }

std::string setting_of(const Config& config, int ranks, const std::string& key) {
  if (key == "ranks") return std::to_string(ranks);
  Config copy = config;
  return value_text(find_key(keys_of(copy), key, "study"));
}

std::string run_identity(const Config& config, int ranks, const std::vector<std::string>& axis_keys) {
  std::string text;
  for (const auto& [key, value] : identifying_values(config, ranks, axis_keys)) text += key + " = " + value + "\n";
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

std::vector<std::string> identity_differences(const Config& before, int ranks_before, const StudyRun& run,
                                              const std::vector<std::string>& axis_keys) {
  const auto old_values = identifying_values(before, ranks_before, axis_keys),
             new_values = identifying_values(run.config, run.ranks, axis_keys);
  std::vector<std::string> differences;
  for (std::size_t i = 0; i < old_values.size(); ++i)
    if (old_values[i] != new_values[i])
      differences.push_back(
          fmt::format("{}: {} -> {}", old_values[i].first, old_values[i].second, new_values[i].second));
  return differences;
}

Study read_study(const std::string& file, const Overrides& overrides, const std::vector<std::string>& files,
                 bool stored) {
  std::string text = read_config_file(file);
  StudyRules rules = take_study_section(text, file);
  std::set<std::string> given;
  const Config own = parse_text(text, file, &given);
  for (const auto& [key, value] : overrides) given.insert(key);
  StudyPoint base{load_config(files, {}, own, &given), rules.ranks};
  for (const Axis& axis : rules.axes)
    for (const std::string& key : axis.keys)
      if (base.get(key) != setting_of(own, rules.ranks, key))
        fail_usage("--config: {} = {} has an axis ({}): choose among its values on the command line: --{} {}.", key,
                   base.get(key), axis.where, key, base.get(key));
  apply_overrides(overrides, rules, base);
  rules.ranks = base.ranks;

  Study study{rules.name.empty() ? fs::path(file).stem().string() : rules.name, file, "", {}, {}};
  for (const Axis& axis : rules.axes) study.axis_keys.insert(study.axis_keys.end(), axis.keys.begin(), axis.keys.end());
  study.text = text_of(base.config, rules, study.name);
  const std::string folder = (fs::path(base.config.run.out) / study.name).string();
  std::map<std::string, std::string> identity_of;  // by name
  for (StudyPoint point : combinations(rules, base, file)) {
    for (const TieRule& rule : rules.ties)
      if (all_hold(rule.conditions, point))
        for (const auto& [key, value] : rule.values) point.set(key, value, rule.where);
    if (stored) set_older_values(point.config, given);
    const auto excludes = [&](const auto& conditions) { return all_hold(conditions, point); };
    if (std::any_of(rules.exclusions.begin(), rules.exclusions.end(), excludes)) continue;
    StudyRun run{name_of(point, study.axis_keys), point.config, point.ranks, ""};
    run.config.run.out = folder;
    run.config.run.name = run.name;
    run.identity = run_identity(run.config, run.ranks, study.axis_keys);
    const auto [earlier, is_new] = identity_of.emplace(run.name, run.identity);
    if (!is_new && earlier->second != run.identity)
      fail_usage(
          "{}: two runs would have the name {}: either a rule sets a key that no axis names (make that key an axis, or "
          "move it together with another: axis = KEY, KEY2: V & W), or values differ only in signs such as / and -.",
          file, run.name);
    if (!is_new) continue;
    check_run(run, file);
    study.runs.push_back(std::move(run));
  }
  if (study.runs.empty()) fail_usage("{}: its rules exclude every run: shorten an exclude line.", file);
  return study;
}

}  // namespace switchyard
