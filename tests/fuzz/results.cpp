// A run's results: described, all rows read, gone on with; and described as any table of columns.
#include "io/results.hpp"
#include "fuzz/harness.hpp"
#include "io/table_file.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const fuzz::Folder folder;
  const std::string path = folder.write("results.h5", bytes);
  fuzz::tolerate_errors([&] { io::describe_table(path); });
  fuzz::tolerate_errors([&] { io::read_routing(path); });
  fuzz::tolerate_errors([&] { io::read_trees(path, {.first_step = 2, .last_step = 5, .most = 2}); });
  fuzz::tolerate_errors([&] { io::read_algorithms(path); });
  const io::ResultsSummary before = io::describe_results(path);

  io::ResultsWriter writer = io::ResultsWriter::reopen(path, 3, {{"note", "more"}}, before.shape, false);
  writer.append(io::StepRow{.step = 4});
  writer.close();
  const io::ResultsSummary after = io::describe_results(path);
  fuzz::require(after.readable, "results that were gone on with can be read");
  fuzz::require(after.last_step && after.last_step->step == 4, "and have the new row");
}

}  // namespace switchyard
