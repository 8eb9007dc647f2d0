// A configuration file: read, printed and read again, and checked.
#include "config/config.hpp"
#include "fuzz/harness.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const fuzz::Folder folder;
  const std::string file = folder.write("input.cfg", bytes);
  const Config config = load_config({file});
  parse_stored(read_config_file(file));
  fuzz::tolerate_errors([&] { load_config({file}, {{"train.lr", config.run.name}, {config.run.name, "1"}}); });

  const std::string printed = to_text(config);
  const Config again = parse_text(printed);
  fuzz::require(to_text(again) == printed, "a configuration reads back as it was printed");
  fuzz::require(result_differences(config, again).empty(), "a configuration is its own equal");
  validate(config);
  check_ranks(config, 4);
}

}  // namespace switchyard
