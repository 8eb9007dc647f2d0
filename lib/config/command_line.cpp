#include "config/command_line.hpp"

#include <algorithm>
#include <filesystem>

#include <boost/program_options.hpp>

#include "config/keys.hpp"
#include "core/error.hpp"

namespace switchyard {

namespace po = boost::program_options;

namespace {

// Without guessing, `--train.b` is an error rather than whichever key it happens to begin today.
constexpr int kStyle = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;

po::parsed_options parse(const std::vector<std::string>& arguments, const po::options_description& all) {
  try {
    return po::command_line_parser(arguments).options(all).style(kStyle).run();
  } catch (const po::unknown_option& error) {
    std::string wrong = error.get_option_name();
    wrong.erase(0, std::min(wrong.find_first_not_of('-'), wrong.size()));
    std::vector<std::string> names;
    for (const auto& option : all.options()) names.push_back(option->long_name());
    fail_usage("command line: unknown option {}{} --help lists every option.", in_quotes(error.get_option_name()),
               suggestion(wrong, names));
  } catch (const po::error& error) {
    fail_usage("command line: {}. --help lists every option.", error.what());
  }
}

}  // namespace

CommandLine parse_command_line(const std::vector<std::string>& arguments, const po::options_description& own,
                               std::size_t max_positional) {
  Config config;
  const std::vector<Key> keys = keys_of(config);
  po::options_description all;
  all.add(own);
  all.add_options()("config", po::value<std::string>(), "");
  for (const Key& key : keys) all.add_options()(key.name, po::value<std::string>(), "");

  const po::parsed_options parsed = parse(arguments, all);
  CommandLine result;
  po::parsed_options rest(&all);
  for (const po::option& option : parsed.options) {
    const std::string& name = option.string_key;
    if (name.empty())
      result.positional.insert(result.positional.end(), option.value.begin(), option.value.end());
    else if (name == "config")
      result.files.push_back(option.value.at(0));
    else if (std::any_of(keys.begin(), keys.end(), [&](const Key& key) { return key.name == name; }))
      result.overrides.emplace_back(name, option.value.at(0));
    else
      rest.options.push_back(option);
  }
  if (result.positional.size() > max_positional)
    fail_usage("command line: {} belongs to no option. --help lists every option.",
               in_quotes(result.positional[max_positional]));
  for (const std::string& word : result.positional)
    if (word.empty()) fail_usage("command line: found \"\" where a file is named: give its name.");
  try {
    po::store(rest, result.options);
    po::notify(result.options);
  } catch (const po::error& error) {
    fail_usage("command line: {}. --help lists every option.", error.what());
  }
  return result;
}

Index timeout_in(const std::vector<std::string>& words) {
  constexpr const char* kKey = "parallel.timeout";
  po::options_description wanted;
  wanted.add_options()("config", po::value<std::string>())(kKey, po::value<std::string>());
  std::vector<std::string> files;
  std::vector<std::pair<std::string, std::string>> overrides;
  std::error_code ignored;
  try {
    const po::parsed_options parsed =
        po::command_line_parser(words).options(wanted).style(kStyle).allow_unregistered().run();
    for (const po::option& option : parsed.options) {
      // What a pipe holds can be read once, and that is not now.
      if (option.string_key == "config") {
        const auto status = std::filesystem::status(option.value.at(0), ignored);
        if (!std::filesystem::exists(status) || std::filesystem::is_regular_file(status))
          files.push_back(option.value.at(0));
      }
      if (option.string_key == kKey) overrides.emplace_back(kKey, option.value.at(0));
    }
    return load_config(files, overrides).parallel.timeout;
  } catch (const Error&) {
  } catch (const po::error&) {
  }
  return Config().parallel.timeout;
}

Config config_from(const CommandLine& command_line, const Config& base) {
  const Config config = load_config(command_line.files, command_line.overrides, base);
  validate(config);
  return config;
}

}  // namespace switchyard
