// A subcommand's arguments: configuration files, keys given again, and the subcommand's own options.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>

#include "config/config.hpp"

namespace switchyard {

struct CommandLine {
  std::vector<std::string> files;                              // --config FILE, in order
  std::vector<std::pair<std::string, std::string>> overrides;  // --key value, in order: the last one wins
  std::vector<std::string> positional;                         // words that belong to no option
  boost::program_options::variables_map options;               // the subcommand's own
};

// `arguments` are those after the subcommand's name. --config and every configuration key are known; `own` declares the
// rest. More than `max_positional` words without an option are an error.
// Throws Error (kUsage); misspelt options come with a suggestion.
CommandLine parse_command_line(const std::vector<std::string>& arguments,
                               const boost::program_options::options_description& own, std::size_t max_positional = 0);

// parallel.timeout alone, whatever subcommand the words are of; its default where they, or the files, cannot be read.
Index timeout_in(const std::vector<std::string>& words);

// load_config() of its files and overrides over `base`, then validate().
Config config_from(const CommandLine& command_line, const Config& base = {});

}  // namespace switchyard
