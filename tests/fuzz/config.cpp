// A configuration file: read, checked, printed and read again.
#include "config/config.hpp"
#include "fuzz/harness.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const std::string text(bytes);
  const fuzz::Folder folder;
  const std::string file = folder.write("input.cfg", bytes);
  Config config;
  fuzz::tolerate_errors([&] { config = load_config({file}, {{"train.lr", text.substr(0, 8)}}); });
  fuzz::tolerate_errors([&] { parse_stored(text); });
  config = parse_text(text);

  const std::string printed = to_text(config);
  const Config again = parse_text(printed);
  fuzz::require(to_text(again) == printed, "a configuration reads back as it was printed");
  fuzz::require(result_differences(config, again).empty(), "a configuration is its own equal");
  validate(config);
  check_ranks(config, 4);
}

}  // namespace switchyard
