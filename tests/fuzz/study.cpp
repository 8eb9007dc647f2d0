// A study: read, expanded into its runs, printed and read again.
#include "config/study.hpp"
#include "fuzz/harness.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const fuzz::Folder folder;
  const std::string file = folder.write("input.cfg", bytes);
  const Study study = read_study(file);
  fuzz::tolerate_errors([&] { read_study(file, {{"train.lr", "0.01"}, {"ffn.experts", "1..4"}}); });
  fuzz::tolerate_errors([&] { read_study(file, {}, {}, true); });

  const Study again = read_study(folder.write("again.cfg", study.text));
  fuzz::require(again.text == study.text && again.runs.size() == study.runs.size(), "a study reads back as printed");
  for (std::size_t i = 0; i < study.runs.size(); ++i)
    fuzz::require(again.runs[i].name == study.runs[i].name && again.runs[i].identity == study.runs[i].identity,
                  "a study's runs are the same when it is read back");
}

}  // namespace switchyard
