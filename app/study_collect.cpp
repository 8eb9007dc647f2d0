// switchyard study collect: one HDF5 file with a link to each run's results and a table of axes and outcomes.
#include <cmath>

#include "app/stop_signals.hpp"
#include "app/study.hpp"
#include "app/study_folder.hpp"
#include "app/text.hpp"
#include "core/error.hpp"
#include "io/schema.hpp"
#include "io/table_file.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// Numbers where all values are.
io::TableColumn axis_column(const std::string& key, const std::vector<std::string>& texts) {
  std::vector<double> numbers;
  for (const std::string& text : texts) numbers.push_back(number_or_nan(text));
  for (const double number : numbers)
    if (std::isnan(number)) return {io::schema::kStudyAxes + key, "1", texts};
  return {io::schema::kStudyAxes + key, "1", numbers};
}

std::vector<io::TableColumn> columns_of(const Study& study, const std::vector<RunReport>& reports) {
  namespace schema = io::schema;
  std::vector<std::string> names, states, digests, identities;
  std::vector<Index> ranks;
  for (std::size_t i = 0; i < study.runs.size(); ++i) {
    names.push_back(study.runs[i].name);
    states.push_back(name_of(reports[i].state));
    digests.push_back(reports[i].attribute("digest"));
    identities.push_back(study.runs[i].identity);
    ranks.push_back(study.runs[i].ranks);
  }
  std::vector<io::TableColumn> columns = {{schema::kStudyName, "1", names},
                                          {schema::kStudyState, "1", states},
                                          {schema::kStudyRanks, "ranks", ranks},
                                          {schema::kStudyIdentity, "1", identities},
                                          {schema::kStudyDigest, "1", digests}};
  for (const schema::StudyOutcome& outcome : schema::kStudyOutcomes) {
    std::vector<double> numbers;
    for (const RunReport& report : reports) numbers.push_back(report.number(outcome.attribute));
    columns.push_back({outcome.column.path, outcome.column.units, numbers});
  }
  for (const std::string& key : study.axis_keys) {
    std::vector<std::string> texts;
    for (const StudyRun& run : study.runs) texts.push_back(setting_of(run.config, run.ranks, key));
    columns.push_back(axis_column(key, texts));
  }
  return columns;
}

}  // namespace

int study_collect(const Study& study, const CommandLine& line) {
  if (line.options.count("output") == 0) fail_usage("study collect: --output F.h5 is missing");
  const fs::path output = line.options["output"].as<std::string>();
  io::TableFile file(output, line.options.count("overwrite") > 0, io::kStudyTable);
  StudyInputs inputs(study.folder());
  std::vector<RunReport> reports;
  std::vector<io::TableLink> links;
  const fs::path base = fs::weakly_canonical(fs::absolute(output)).parent_path();
  for (const StudyRun& run : study.runs) {
    reports.push_back(look_at(study, run, inputs));
    const RunReport& report = reports.back();
    if (!report.results.readable || report.state == RunState::kForeign) {
      fmt::print(stderr, "switchyard: warning: {}: no link, {}\n", run.name,
                 report.detail.empty() ? "it has no results yet" : report.detail);
      continue;
    }
    const fs::path results = fs::weakly_canonical(fs::absolute(run_folder(run) / "results.h5"));
    links.push_back({fmt::format("{}/{}", io::schema::kStudyRuns, run.name), results.lexically_relative(base)});
  }
  ignore_stop_signals();
  file.write(columns_of(study, reports), {{"study", study.name}, {io::schema::kConfig, study.text}}, links);
  fmt::print("{}: {}, {} of them linked\n", output.string(), plural(static_cast<Index>(study.runs.size()), "run"),
             links.size());
  return 0;
}

}  // namespace switchyard
