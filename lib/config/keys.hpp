// The table of keys (key_table.cpp): what a configuration file, the command line, --help and the printed configuration
// all go by.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.hpp"

namespace switchyard {

// What a key takes. Numbers: an interval; text: a list of choices, or any text.
struct Allowed {
  double lowest = -std::numeric_limits<double>::infinity();
  double highest = std::numeric_limits<double>::infinity();
  bool lowest_open = false;  // an open end is itself not allowed
  bool highest_open = false;
  std::vector<std::string> choices = {};  // empty: any text
  bool may_be_empty = false;
  bool or_minus_one = false;  // beside the interval
};

// What another value changes: the trained model or a measured accuracy; that by rounding alone, as a resumed run may;
// no more than where and how fast.
enum class Effect { kResult, kRounding, kNone };

struct Key {
  const char* name;                                                          // "section.key"
  std::variant<std::string*, bool*, Index*, std::uint64_t*, double*> value;  // into the Config given to keys_of
  Allowed allowed;
  Effect effect;
  const char* doc;
};

// All keys in their printed order; keys of a section stand together.
std::vector<Key> keys_of(Config& config);

// Fails with kUsage, at `where` (file:line, or the command line), with the nearest name there is.
const Key& find_key(const std::vector<Key>& keys, const std::string& name, std::string_view where);

// Parses and checks; `where` (file:line, or the command line) opens the error.
void set_value(const Key& key, std::string_view text, std::string_view where);

std::string value_text(const Key& key);
std::string allowed_text(const Key& key);

// `text` in quotes for a message: clipped, unprintable characters and bytes that are not UTF-8 as '?'.
std::string in_quotes(std::string_view text);

// Without white space at its ends.
std::string_view trimmed(std::string_view text);

std::string joined(const std::vector<std::string>& words, std::string_view separator);

// ", did you mean x?" for the nearest of the names, or "." when none is near.
std::string suggestion(std::string_view wrong, const std::vector<std::string>& names);

}  // namespace switchyard
