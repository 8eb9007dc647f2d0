// A study: a set of runs over axes, read from a configuration file with a section [study], whose keys may repeat:
//
//   name = NAME                                     the study's folder is run.out/NAME/; default: the file's stem
//   ranks = N                                       of every run; default 1
//   axis = KEY: V1, V2                              a run for each value; whole numbers also as 1..5; KEY may be ranks
//   axis = KEY, KEY2: V1 & W1, V2 & W2              keys that move together
//   set = KEY: V; KEY2: V if KEY3: V1, V2; KEY4: V  values that follow where all conditions hold, in the order of rules
//   exclude = KEY: V1, V2; KEY2: V                  leaves out the runs for which all hold, after the rules
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/config.hpp"

namespace switchyard {

struct StudyRun {
  std::string name;  // of the values of the axes: "experts4-batch128-seed1"
  Config config;     // run.out is the study's folder, run.name the name
  int ranks = 1;
  std::string identity;  // run_identity() with the study's axes
};

struct Study {
  std::string name;
  std::string source;                  // the file
  std::string text;                    // reads back as the same study, command line included
  std::vector<std::string> axis_keys;  // in their order, "ranks" among them
  std::vector<StudyRun> runs;          // the first axis varies slowest; valid, no two alike

  std::string folder() const;
};

// Files, and then keys on the command line, win over the file's own, the latter over its `set` rules, too; for a key of
// an axis the command line chooses among its values ("1, 3..5"), and files may not set it. Throws Error (kUsage) naming
// file, line, what was found and what is allowed.
// stored: the file is a Study::text, perhaps an older one; keys that it lacks are as parse_stored() has them.
Study read_study(const std::string& file, const std::vector<std::pair<std::string, std::string>>& overrides = {},
                 const std::vector<std::string>& files = {}, bool stored = false);

// XXH3-64, 16 hexadecimal digits, over all that makes a run's result but the files that it reads: its configuration
// without keys that have no effect on it, but with those that an axis varies, and "ranks" where one varies these.
std::string run_identity(const Config& config, int ranks, const std::vector<std::string>& axis_keys);

// What differs in that, each as "KEY: OLD -> NEW".
std::vector<std::string> identity_differences(const Config& before, int ranks_before, const StudyRun& run,
                                              const std::vector<std::string>& axis_keys);

// The value of a configuration's key, or of "ranks", as text.
std::string setting_of(const Config& config, int ranks, const std::string& key);

}  // namespace switchyard
