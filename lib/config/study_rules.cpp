#include "config/study_rules.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include "config/keys.hpp"
#include "config/study.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace {

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.emplace_back(trimmed(text.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + separator.size());
  }
}

// "KEYS: VALUES" -> both sides.
std::pair<std::string, std::string> sides(const std::string& text, const std::string& where, const char* form) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos)
    fail_usage("{}: found {}: the : after the key is missing: {}.", where, in_quotes(text), form);
  const std::string left(trimmed(std::string_view(text).substr(0, colon)));
  const std::string right(trimmed(std::string_view(text).substr(colon + 1)));
  if (left.empty() || right.empty())
    fail_usage("{}: found {}: the {} missing: {}.", where, in_quotes(text), left.empty() ? "key is" : "values are",
               form);
  return {left, right};
}

// As value_text() prints it: 1e-3 and 0.001 are the same.
std::string checked(const std::string& key, const std::string& value, const std::string& where) {
  StudyPoint point;
  point.set(key, value, where);
  return point.get(key);
}

bool whole_number(std::string_view text, Index& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// "1..5" -> 1, 2, 3, 4, 5; any other text is a value by itself.
std::vector<std::string> range_or_value(const std::string& text, const std::string& where) {
  const std::size_t dots = text.find("..");
  Index first = 0, last = 0;
  if (dots == std::string::npos || !whole_number(std::string_view(text).substr(0, dots), first) ||
      !whole_number(std::string_view(text).substr(dots + 2), last))
    return {text};
  if (first > last) fail_usage("{}: the range {} is empty: write the lower number first.", where, in_quotes(text));
  if (static_cast<std::uint64_t>(last) - static_cast<std::uint64_t>(first) >= kMostValues)
    fail_usage("{}: the range {} has more than {} values: give fewer.", where, in_quotes(text), kMostValues);
  std::vector<std::string> values;
  for (Index i = 0; i <= last - first; ++i) values.push_back(std::to_string(first + i));
  return values;
}

Axis parse_axis(const std::string& text, const std::string& where, std::set<std::string>& taken) {
  constexpr const char* kForm = "axis = KEY: V1, V2, or 1..5, or KEY, KEY2: V1 & W1, V2 & W2";
  const auto [left, right] = sides(text, where, kForm);
  Axis axis{where, split(left, ","), {}};
  for (const std::string& key : axis.keys) {
    if (key == "run.name" || key == "run.out")
      fail_usage("{}: {} cannot be an axis: runs are named by the values of the axes.", where, key);
    Config config;
    if (key != "ranks") find_key(keys_of(config), key, where);
    if (!taken.insert(key).second) fail_usage("{}: {} has an axis already: give all of its values in one.", where, key);
  }
  std::set<std::vector<std::string>> there;
  for (const std::string& item : split(right, ",")) {
    if (item.empty()) fail_usage("{}: found {}: a value is missing beside a comma: {}.", where, in_quotes(text), kForm);
    std::vector<std::string> point = split(item, "&");
    if (point.size() != axis.keys.size())
      fail_usage("{}: found {}: {} values for the {} keys {}: give one each, with & between.", where, in_quotes(item),
                 point.size(), axis.keys.size(), left);
    const std::vector<std::string> firsts =
        point.size() == 1 ? range_or_value(point[0], where) : std::vector<std::string>{point[0]};
    for (const std::string& first : firsts) {
      point[0] = first;
      std::vector<std::string> values;
      for (std::size_t k = 0; k < point.size(); ++k) values.push_back(checked(axis.keys[k], point[k], where));
      if (!there.insert(values).second)
        fail_usage("{}: the value {} is there twice: keep one of them.", where, in_quotes(item));
      if (there.size() > kMostValues)
        fail_usage("{}: the axis has more than {} values: give fewer.", where, kMostValues);
      axis.values.push_back(std::move(values));
    }
  }
  return axis;
}

std::vector<Condition> parse_conditions(const std::string& text, const std::string& where, const char* form) {
  std::vector<Condition> conditions;
  for (const std::string& part : split(text, ";")) {
    const auto [key, values] = sides(part, where, form);
    conditions.push_back({key, parse_values(key, values, where)});
  }
  return conditions;
}

TieRule parse_tie(const std::string& text, const std::string& where) {
  constexpr const char* kForm = "set = KEY: V if KEY2: V1, V2; KEY3: V";
  const std::size_t word = text.find(" if ");
  if (word == std::string::npos)
    fail_usage(
        "{}: found {}: the word if and a condition are missing: {}. What holds for all runs stands in its own "
        "section.",
        where, in_quotes(text), kForm);
  TieRule rule{where, {}, parse_conditions(text.substr(word + 4), where, kForm), text.substr(word + 4)};
  for (const std::string& part : split(text.substr(0, word), ";")) {
    const auto [key, value] = sides(part, where, kForm);
    if (key == "run.name" || key == "run.out")
      fail_usage("{}: {} cannot be set: runs are named by the values of the axes.", where, key);
    rule.values.emplace_back(key, checked(key, value, where));
  }
  return rule;
}

void apply_line(const std::string& key, const std::string& value, const std::string& where, StudyRules& rules,
                std::set<std::string>& taken, std::set<std::string>& given) {
  if ((key == "name" || key == "ranks") && !given.insert(key).second)
    fail_usage("{}: study.{} is given a second time: keep one of them.", where, key);
  if (key == "name") {
    if (value.empty() || value == "." || value == ".." || value.find('/') != std::string::npos)
      fail_usage("{}: study.name = {}: it names a folder inside run.out: use a name without /.", where,
                 in_quotes(value));
    rules.name = value;
  } else if (key == "ranks") {
    StudyPoint point;
    point.set("ranks", value, where);
    rules.ranks = point.ranks;
  } else if (key == "axis") {
    rules.axes.push_back(parse_axis(value, where, taken));
  } else if (key == "set") {
    rules.ties.push_back(parse_tie(value, where));
  } else if (key == "exclude") {
    rules.exclusions.push_back(parse_conditions(value, where, "exclude = KEY: V1, V2; KEY2: V"));
    rules.exclusion_text += fmt::format("exclude = {}\n", value);
  } else {
    const std::vector<std::string> names = {"name", "ranks", "axis", "set", "exclude"};
    fail_usage("{}: unknown key {} in [study]{} Allowed are {}.", where, in_quotes(key), suggestion(key, names),
               joined(names, ", "));
  }
}

}  // namespace

void StudyPoint::set(const std::string& key, const std::string& value, const std::string& where) {
  if (key != "ranks") return set_value(find_key(keys_of(config), key, where), value, where);
  Index number = 0;
  if (!whole_number(value, number) || number < 1 || number > 1000000)
    fail_usage("{}: ranks = {} is not allowed; allowed: a whole number from 1 to 1000000.", where, in_quotes(value));
  ranks = static_cast<int>(number);
}

std::string StudyPoint::get(const std::string& key) const { return setting_of(config, ranks, key); }

std::vector<std::string> parse_values(const std::string& key, const std::string& text, const std::string& where) {
  std::vector<std::string> values;
  for (const std::string& item : split(text, ","))
    for (const std::string& value : range_or_value(item, where)) values.push_back(checked(key, value, where));
  return values;
}

bool all_hold(const std::vector<Condition>& conditions, const StudyPoint& point) {
  return std::all_of(conditions.begin(), conditions.end(), [&](const Condition& condition) {
    return std::find(condition.values.begin(), condition.values.end(), point.get(condition.key)) !=
           condition.values.end();
  });
}

StudyRules take_study_section(std::string& text, const std::string& source) {
  std::istringstream stream(text);
  std::string rest, raw;
  StudyRules rules;
  std::set<std::string> taken, given;
  bool inside = false, found = false;
  for (int number = 1; std::getline(stream, raw); ++number, rest += '\n') {
    const std::string where = fmt::format("{}:{}", source, number);
    const std::string line(trimmed(std::string_view(raw).substr(0, raw.find('#'))));
    if (!line.empty() && line.front() == '[') {
      inside = line.back() == ']' && trimmed(std::string_view(line).substr(1, line.size() - 2)) == "study";
      found |= inside;
    }
    if (!inside) {
      rest += raw;
      continue;
    }
    if (line.empty() || line.front() == '[') continue;
    const std::size_t equals = line.find('=');
    if (equals == std::string::npos)
      fail_usage("{}: found {}: a line of [study] holds name, ranks, axis, set or exclude, =, and a value.", where,
                 in_quotes(line));
    apply_line(std::string(trimmed(line.substr(0, equals))), std::string(trimmed(line.substr(equals + 1))), where,
               rules, taken, given);
  }
  if (!found) {
    parse_text(rest, source);  // another mistake, such as [study without its ], is the nearer one
    fail_usage("{}: is no study: it has no section [study] with lines such as `axis = run.seed: 1..3`.", source);
  }
  text = rest;
  return rules;
}

}  // namespace switchyard
