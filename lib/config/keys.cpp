#include "config/keys.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <system_error>
#include <type_traits>

#include "core/error.hpp"

namespace switchyard {

namespace {

template <typename T>
bool parse_number(std::string_view text, T& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end && !text.empty();
}

template <typename T>
bool set_number(const Allowed& allowed, std::string_view text, T& target) {
  T number{};
  if (!parse_number(text, number)) return false;
  const double value = static_cast<double>(number);
  if (!std::isfinite(value)) return false;
  if (allowed.or_minus_one && value == -1) {
    target = number;
    return true;
  }
  if (value < allowed.lowest || (allowed.lowest_open && value == allowed.lowest)) return false;
  if (value > allowed.highest || (allowed.highest_open && value == allowed.highest)) return false;
  target = number;
  return true;
}

bool set_flag(std::string_view text, bool& target) {
  if (text != "true" && text != "false") return false;
  target = text == "true";
  return true;
}

// Text has to survive being printed into a file and read back: no comment sign, quotes or line breaks.
bool set_text(const Allowed& allowed, std::string_view text, std::string& target) {
  if (!allowed.choices.empty()) {
    if (std::find(allowed.choices.begin(), allowed.choices.end(), text) == allowed.choices.end()) return false;
  } else {
    if (text.empty() && !allowed.may_be_empty) return false;
    const auto unfit = [](unsigned char ch) { return ch < ' ' || ch == 127 || ch == '#' || ch == '"'; };
    if (std::any_of(text.begin(), text.end(), unfit)) return false;
    if (!text.empty() && (text.front() == ' ' || text.back() == ' ')) return false;
  }
  target = text;
  return true;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// Bytes of the UTF-8 character that the text begins with; 0 where these are none, or a control character.
std::size_t printable_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  const unsigned first = byte(0);
  if (first < 0x80) return first >= ' ' && first != 127 ? 1 : 0;
  if (first < 0xC2 || first > 0xF4 || (first == 0xC2 && byte(1) < 0xA0)) return 0;
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0)) return 0;  // overlong, or a surrogate
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return length;
}

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

}  // namespace

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\f\v";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

const Key& find_key(const std::vector<Key>& keys, const std::string& name, std::string_view where) {
  const auto found = std::find_if(keys.begin(), keys.end(), [&](const Key& key) { return key.name == name; });
  if (found != keys.end()) return *found;
  std::vector<std::string> names;
  for (const Key& key : keys) names.push_back(key.name);
  fail_usage("{}: unknown key {}{} --help lists every key.", where, in_quotes(name), suggestion(name, names));
}

void set_value(const Key& key, std::string_view text, std::string_view where) {
  const bool fits = std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, bool>)
          return set_flag(text, *target);
        else if constexpr (std::is_same_v<T, std::string>)
          return set_text(key.allowed, text, *target);
        else
          return set_number(key.allowed, text, *target);
      },
      key.value);
  if (!fits)
    fail_usage("{}: {} = {} is not allowed; allowed: {}.", where, key.name, in_quotes(text), allowed_text(key));
}

std::string value_text(const Key& key) {
  // fmt prints the shortest decimal that reads back as the same double.
  return std::visit([](const auto* value) { return fmt::format("{}", *value); }, key.value);
}

std::string allowed_text(const Key& key) {
  const Allowed& allowed = key.allowed;
  if (std::holds_alternative<bool*>(key.value)) return "true | false";
  if (std::holds_alternative<std::string*>(key.value)) {
    if (!allowed.choices.empty()) return joined(allowed.choices, " | ");
    return allowed.may_be_empty ? "text without # or quotes, or nothing" : "text without # or quotes";
  }
  if (std::holds_alternative<std::uint64_t*>(key.value)) return "a whole number from 0 to 18446744073709551615";
  std::string text = std::holds_alternative<Index*>(key.value) ? "a whole number" : "a number";
  const auto print = [](double value) {
    return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{}", static_cast<Index>(value))
                                                                : fmt::format("{}", value);
  };
  if (std::isfinite(allowed.lowest))
    text += fmt::format(" {} {}", allowed.lowest_open ? "above" : "from", print(allowed.lowest));
  if (std::isfinite(allowed.highest))
    text += fmt::format("{} {}", allowed.highest_open ? " to below" : " to", print(allowed.highest));
  else if (!allowed.lowest_open)
    text += " up";
  if (allowed.or_minus_one) text += ", or -1";
  return text;
}

std::string joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) (text += text.empty() ? "" : separator) += word;
  return text;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  std::string shown;
  for (std::string_view rest = text.substr(0, kLongest); !rest.empty();) {
    const std::size_t length = printable_length(rest);
    shown += length > 0 ? rest.substr(0, length) : "?";
    rest.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return fmt::format("\"{}{}\"", shown, text.size() > kLongest ? "..." : "");
}

std::string suggestion(std::string_view wrong, const std::vector<std::string>& names) {
  wrong = wrong.substr(0, 64);
  const std::size_t most = std::max<std::size_t>(2, wrong.size() / 3);
  const std::string* best = nullptr;
  std::size_t best_distance = 0;
  for (const std::string& name : names) {
    // The right key in the wrong section is nearer than any misspelling but one of a letter or two.
    const std::size_t difference = std::max(wrong.size(), name.size()) - std::min(wrong.size(), name.size());
    std::size_t distance = difference > most ? difference : edit_distance(wrong, name);
    if (last_part(wrong) == last_part(name)) distance = std::min<std::size_t>(distance, 2);
    if (name.starts_with(wrong)) distance = 1;
    if (best == nullptr || distance < best_distance) best = &name, best_distance = distance;
  }
  if (best == nullptr || best_distance > most) return ".";
  return fmt::format(", did you mean {}?", *best);
}

}  // namespace switchyard
