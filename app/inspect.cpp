// switchyard inspect: what a configuration, checkpoint, results or bench file holds; for several results files, one
// table.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "app/commands.hpp"
#include "app/routing_table.hpp"
#include "app/session.hpp"
#include "app/text.hpp"
#include "app/text_table.hpp"
#include "config/command_line.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "io/schema.hpp"
#include "io/table_file.hpp"
#include "model/products.hpp"
#include "network/model_options.hpp"

namespace switchyard {

namespace {

constexpr const char* kHelp =
    "switchyard inspect FILE.cfg [--KEY VALUE ...]   the model: parameters, layers, cost\n"
    "switchyard inspect CHECKPOINT.h5                what it holds, and whether it verifies\n"
    "switchyard inspect RESULTS.h5                   the run: settings, progress, evaluations\n"
    "switchyard inspect RESULTS.h5 --routing         where its tokens went: by layer, over the last 100 logged steps\n"
    "                                                (--last N: the last N), each expert's share as a bar, the load's\n"
    "                                                coefficient of variation and max/mean, entropies, experts "
    "without\n"
    "                                                a token, tokens dropped; of trees each leaf's share and nodes'\n"
    "                                                entropies\n"
    "switchyard inspect RESULTS.h5 RESULTS.h5 ...    a table that compares runs; M_A, G_A: memorisation and\n"
    "                                                generalisation accuracy, ETT: epochs elapsed when observed\n"
    "switchyard inspect BENCH.h5                     what bench measured: command, machine, date, rows\n"
    "switchyard inspect STUDY.h5                     what study collect wrote\n";

void print_table(const std::vector<std::vector<std::string>>& rows) {
  TextTable table(rows[0]);
  for (std::size_t i = 1; i < rows.size(); ++i) table.add(rows[i]);
  table.print();
}

std::string shape_text(const std::vector<Index>& shape) {
  std::string text;
  for (Index extent : shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text;
}

int inspect_config(const CommandLine& line, const std::string& path) {
  CommandLine with_file = line;
  with_file.files.insert(with_file.files.begin(), path);
  const Config config = config_from(with_file);
  const ImageShape shape = shape_of_data(config);
  ParameterTable table;
  const auto model = make_model(model_options(config, shape), table);
  double flop = attention_training_flop(model->options());
  for (const ProductShape& product : training_products(model->options(), 1)) flop += product.flop();
  fmt::print("{}\n{} images of {} x {} x {}, {} classes: {}\n", describe_model(config), config.data.kind, shape.height,
             shape.width, shape.channels, shape.classes, plural(model->options().num_tokens(), "token"));
  fmt::print("parameters {} stored, {} active\n", group_digits(table.num_stored()),
             group_digits(table.num_active(model->options().ffn.parts_per_token())));
  fmt::print("{:.3f} GFLOP of matrix products a training image\n\n", flop / 1e9);
  std::vector<std::vector<std::string>> rows{{"parameter", "shape", "size"}};
  for (ParameterId id = 0; id < table.size(); ++id)
    rows.push_back({table[id].name, shape_text(table[id].shape), group_digits(table[id].size())});
  print_table(rows);
  return 0;
}

// An attribute's text that `show` makes of its number; as it is where somebody has made it anything else.
template <typename Number, typename Show>
std::string shown_number(const std::string& text, const Show& show) {
  Number number{};
  const char* const text_end = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), text_end, number);
  return error == std::errc() && end == text_end ? show(number) : text;
}

// Accuracies stand there to the last bit: 0.66725 of 66.725 % as 0.6672500000000001.
std::string shown(const std::string& name, const std::string& value) {
  if (value.empty()) return "-";
  if (!name.ends_with("_accuracy")) return value;
  return shown_number<double>(value, [](double accuracy) { return fmt::format("{:.12g}", accuracy); });
}

void print_attributes(const std::map<std::string, std::string>& attributes, const std::set<std::string>& apart) {
  for (const auto& [name, value] : attributes)
    if (!apart.contains(name)) fmt::print("{} {}\n", printable(name), printable(shown(name, value)));
}

int inspect_checkpoint(const io::CheckpointSummary& summary, const std::string& path) {
  if (!summary.verifies) fail("{}", summary.problem.empty() ? path + " does not verify" : summary.problem);
  // An optimiser's arrays repeat the parameters' shapes: their sum says enough.
  std::map<std::string, Index> sizes;
  std::vector<std::vector<std::string>> rows{{"parameter", "shape", "size"}};
  for (const io::ArraySummary& array : summary.arrays) {
    Index size = 1;
    for (Index extent : array.shape) size *= extent;
    const bool is_parameter = array.name.starts_with("parameters/");
    sizes[is_parameter ? "parameters" : array.name.substr(0, array.name.rfind('/'))] += size;
    if (is_parameter)
      rows.push_back({array.name.substr(array.name.find('/') + 1), shape_text(array.shape), group_digits(size)});
  }
  fmt::print("{}: checkpoint after step {}, verified\ndigest {}\n{} arrays\n", path, summary.info.step,
             summary.info.digest, summary.arrays.size());
  for (const auto& [name, size] : sizes) fmt::print("{} {} numbers\n", name, group_digits(size));
  print_attributes(summary.info.attributes, {});
  fmt::print("\n");
  print_table(rows);
  fmt::print("\nconfiguration:\n{}", printable(summary.info.config));
  return 0;
}

std::string attribute(const io::ResultsSummary& summary, const std::string& name) {
  const auto found = summary.attributes.find(name);
  return found == summary.attributes.end() || found->second.empty() ? "-" : printable(found->second);
}

std::string state_of(const io::ResultsSummary& summary) {
  if (summary.unfinished) return "still being written, or its writer was killed";
  const std::string status = attribute(summary, "status");
  return status == "running" ? "ended early" : status;  // closed by a run that could not say why
}

// With the columns of those splits that were measured.
std::vector<std::vector<std::string>> evaluation_rows(const std::vector<io::EvaluationRow>& evaluations) {
  struct Split {
    const char* name;
    double io::EvaluationRow::*accuracy;
    double io::EvaluationRow::*loss;
  };
  const std::array<Split, 3> splits = {
      {{"test", &io::EvaluationRow::accuracy, &io::EvaluationRow::loss},
       {"validation", &io::EvaluationRow::validation_accuracy, &io::EvaluationRow::validation_loss},
       {"training", &io::EvaluationRow::training_accuracy, &io::EvaluationRow::training_loss}}};
  std::vector<std::vector<std::string>> rows{{"epoch", "step"}};
  for (const io::EvaluationRow& row : evaluations)
    rows.push_back({fmt::format("{:.4g}", row.epoch), std::to_string(row.step)});
  for (const Split& split : splits) {
    const auto measured = [&](const io::EvaluationRow& row) { return !std::isnan(row.*split.accuracy); };
    if (&split != &splits[0] && std::none_of(evaluations.begin(), evaluations.end(), measured)) continue;
    rows[0].push_back(fmt::format("{} accuracy %", split.name));
    rows[0].push_back(fmt::format("{} loss", split.name));
    for (std::size_t i = 0; i < evaluations.size(); ++i) {
      rows[i + 1].push_back(fmt::format("{:.2f}", 100 * evaluations[i].*split.accuracy));
      rows[i + 1].push_back(fmt::format("{:.4f}", evaluations[i].*split.loss));
    }
  }
  return rows;
}

int inspect_results(const io::ResultsSummary& summary, const std::string& path) {
  fmt::print("{}: results, {} logged steps, {}\n", path, summary.num_steps, state_of(summary));
  print_attributes(summary.attributes, {"config", "status"});
  if (summary.shape.has_algorithms)
    fmt::print("algorithms of matrix products: {}, in the dataset {}\n", io::read_algorithms(path).size(),
               io::schema::kProductAlgorithms);
  if (summary.last_step)
    fmt::print("last step {}: loss {:.4f}, gradient norm {:.4f}, {:.0f} samples/s\n", summary.last_step->step,
               summary.last_step->loss, summary.last_step->gradient_norm, summary.last_step->samples_per_second);
  fmt::print("\n");
  print_table(evaluation_rows(summary.evaluations));
  fmt::print("\nconfiguration:\n{}", attribute(summary, "config"));
  return 0;
}

// Of a benchmark, or of a collected study.
int inspect_tables(const io::TableSummary& summary, const std::string& path) {
  const bool is_study = summary.attributes.contains("study");
  const auto title = summary.attributes.find(is_study ? "study" : "benchmark");
  fmt::print("{}: {} {}\n", path, is_study ? "study" : "bench",
             title == summary.attributes.end() ? "-" : printable(title->second));
  print_attributes(summary.attributes, {"benchmark", "study"});
  std::map<std::string, std::pair<Index, Index>> tables;  // rows and columns
  for (const auto& [column, rows] : summary.columns) {
    auto& [num_rows, num_columns] = tables[column.substr(0, column.find('/'))];
    num_rows = rows;
    ++num_columns;
  }
  for (const auto& [name, size] : tables)
    fmt::print("\ntable {}: {}, {}; see h5py, h5py.File(\"{}\")[\"{}\"].keys()\n", name, plural(size.first, "row"),
               plural(size.second, "column"), path, name);
  return 0;
}

std::string grouped(const std::string& text) { return shown_number<Index>(text, group_digits); }
std::string percent(const std::string& text) {
  return shown_number<double>(text, [](double share) { return fmt::format("{:.2f}", 100 * share); });
}
template <int kDecimals>
std::string rounded(const std::string& text) {
  return shown_number<double>(text, [](double number) { return fmt::format("{:.{}f}", number, kDecimals); });
}

// A column of the table that compares runs.
struct Comparison {
  const char* heading;
  const char* attribute;
  std::string (*show)(const std::string& text);
  bool always = true;  // or where a run has it
};

constexpr Comparison kComparisons[] = {
    {"parameters stored", "parameters_stored", grouped},
    {"active", "parameters_active", grouped},
    {"test accuracy %", "test_accuracy", percent},
    {"test loss", "test_loss", rounded<4>},
    {"seconds an epoch", "seconds_per_epoch", rounded<1>},
    {"M_A %", io::schema::kMemorisationAccuracy, percent, false},
    {"ETT", io::schema::kMemorisationEpoch, rounded<1>, false},
    {"G_A %", io::schema::kGeneralisationAccuracy, percent, false},
    {"ETT", io::schema::kGeneralisationEpoch, rounded<1>, false},
    {"dispatch entropy", io::schema::kDispatchEntropy, rounded<3>, false},
};

int compare_results(const std::vector<std::string>& paths) {
  std::vector<io::ResultsSummary> runs;
  std::vector<std::vector<std::string>> rows{{"model"}};
  for (const std::string& path : paths) {
    runs.push_back(io::describe_results(path));
    if (!runs.back().readable) fail("{}; of several files, inspect compares results files alone", runs.back().problem);
    rows.push_back({attribute(runs.back(), "name")});
  }
  for (const Comparison& column : kComparisons) {
    const auto has_it = [&](const io::ResultsSummary& run) { return attribute(run, column.attribute) != "-"; };
    if (!column.always && std::none_of(runs.begin(), runs.end(), has_it)) continue;
    rows[0].push_back(column.heading);
    for (std::size_t i = 0; i < runs.size(); ++i)
      rows[i + 1].push_back(has_it(runs[i]) ? column.show(attribute(runs[i], column.attribute)) : "-");
  }
  print_table(rows);
  return 0;
}

int inspect_file(const CommandLine& line) {
  if (line.positional.empty()) fail_usage("inspect: name a file; `switchyard inspect --help` lists the kinds");
  const std::string& path = line.positional[0];
  if (line.options.count("routing") > 0) {
    if (line.positional.size() > 1)
      fail_usage("inspect: --routing takes one results file, not {}", line.positional.size());
    return inspect_routing(path, line.options["last"].as<Index>());
  }
  if (line.positional.size() > 1) return compare_results(line.positional);
  if (std::filesystem::path(path).extension() == ".cfg") return inspect_config(line, path);
  const io::ResultsSummary results = io::describe_results(path);
  if (results.readable) return inspect_results(results, path);
  if (results.is_results) fail("{}", results.problem);
  if (const auto tables = io::describe_table(path)) return inspect_tables(*tables, path);
  const io::CheckpointSummary checkpoint = io::describe_checkpoint(path);
  return inspect_checkpoint(checkpoint, path);
}

}  // namespace

std::string inspect_help(const Words&) { return kHelp; }

int inspect_command(const Words& arguments) {
  boost::program_options::options_description own;
  own.add_options()("routing", "")("last", boost::program_options::value<Index>()->default_value(100), "");
  return inspect_file(parse_command_line(arguments, own, 1000));
}

}  // namespace switchyard
