// The lines of a section [study], parsed and each value checked by itself.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/config.hpp"

namespace switchyard {

// Values of one axis, and runs of a study. Fewer in the fuzzed build, where an input is to take milliseconds.
#ifdef SWITCHYARD_FUZZ
inline constexpr std::uint64_t kMostValues = 100, kMostRuns = 500;
#else
inline constexpr std::uint64_t kMostValues = 10000, kMostRuns = 100000;
#endif

// One combination of values.
struct StudyPoint {
  Config config;
  int ranks = 1;

  void set(const std::string& key, const std::string& value, const std::string& where);
  std::string get(const std::string& key) const;
};

struct Axis {
  std::string where;                             // file:line
  std::vector<std::string> keys;                 // that move together
  std::vector<std::vector<std::string>> values;  // (points, keys), as value_text() prints them
};

// Holds where the key has one of the values.
struct Condition {
  std::string key;
  std::vector<std::string> values;
};

struct TieRule {
  std::string where;
  std::vector<std::pair<std::string, std::string>> values;
  std::vector<Condition> conditions;
  std::string condition_text;
};

struct StudyRules {
  std::string name;  // empty: not given
  int ranks = 1;
  std::vector<Axis> axes;
  std::vector<TieRule> ties;
  std::vector<std::vector<Condition>> exclusions;
  std::string exclusion_text;  // their lines
};

// "1, 4..6" -> 1, 4, 5, 6, each checked and as value_text() prints it. Throws Error (kUsage).
std::vector<std::string> parse_values(const std::string& key, const std::string& text, const std::string& where);

bool all_hold(const std::vector<Condition>& conditions, const StudyPoint& point);

// Takes the section [study] out of `text`, in which its lines become empty. Throws Error (kUsage).
StudyRules take_study_section(std::string& text, const std::string& source);

}  // namespace switchyard
