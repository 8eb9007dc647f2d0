// switchyard study table: what came out, for each combination of the axes but run.seed.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>

#include <boost/math/distributions/students_t.hpp>

#include "app/study.hpp"
#include "app/study_folder.hpp"
#include "app/text.hpp"
#include "app/text_table.hpp"
#include "io/schema.hpp"

namespace switchyard {

namespace {

using Values = std::vector<double>;

double mean_of(const Values& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Half the width of the 95 % confidence interval of the mean of a normal variable: t(0.975, n-1) * s / sqrt(n), with s
// the sample's standard deviation.
double half_width(const Values& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const boost::math::students_t distribution(n - 1);
  return boost::math::quantile(distribution, 0.975) * std::sqrt(squares / (n - 1) / n);
}

// "87.12 ± 0.34"; one value has no interval.
std::string with_interval(const Values& values, int decimals) {
  if (values.empty()) return "-";
  std::string text = fmt::format("{:.{}f}", mean_of(values), decimals);
  if (values.size() > 1)
    text += fmt::format(" {} {:.{}f}", speaks_unicode() ? "±" : "+-", half_width(values), decimals);
  return text;
}

// What a run is scored by: an accuracy, percent, and the epochs elapsed when it was observed.
struct Score {
  Values accuracy, epoch;
};

struct Group {
  std::vector<std::string> axes;
  Index num_runs = 0, num_done = 0;
  Values accuracy = {}, loss = {}, seconds = {};  // percent, nats, seconds an epoch
  Values dispatch_entropy = {};                   // nats
  Score memorisation = {}, generalisation = {};   // of those runs that measure them
  std::string stored = "-", active = "-";
  std::set<std::string> digests = {};

  void add(const RunReport& report);
};

void Group::add(const RunReport& report) {
  ++num_runs;
  if (report.state != RunState::kDone) return;
  ++num_done;
  const auto add_value = [&](Values& values, const char* name, double scale) {
    if (const double value = report.number(name); !std::isnan(value)) values.push_back(scale * value);
  };
  add_value(seconds, "seconds_per_epoch", 1);
  // Runs of the same bits, as dense ones are under the name of any router, are no further evidence but of time.
  if (!digests.insert(report.attribute("digest")).second) return;
  add_value(accuracy, "test_accuracy", 100);
  add_value(loss, "test_loss", 1);
  add_value(memorisation.accuracy, io::schema::kMemorisationAccuracy, 100);
  add_value(memorisation.epoch, io::schema::kMemorisationEpoch, 1);
  add_value(generalisation.accuracy, io::schema::kGeneralisationAccuracy, 100);
  add_value(generalisation.epoch, io::schema::kGeneralisationEpoch, 1);
  add_value(dispatch_entropy, io::schema::kDispatchEntropy, 1);
  stored = group_digits(std::atoll(report.attribute("parameters_stored").c_str()));
  active = group_digits(std::atoll(report.attribute("parameters_active").c_str()));
}

// A dense run has no router, whatever its configuration says.
std::string cell_of(const StudyRun& run, const std::string& key) {
  if (key == "ffn.router" && run.config.ffn.kind == "dense") return "-";
  return setting_of(run.config, run.ranks, key);
}

bool is_number(const std::string& text) {
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0';
}

// Appends a score's three columns to the heading and to each group's row, where any run has it. Papers report the best
// of several runs.
void add_score(const char* name, Score Group::*score, const std::vector<Group>& groups,
               std::vector<std::vector<std::string>>& rows) {
  const auto has_it = [&](const Group& group) { return !(group.*score).accuracy.empty(); };
  if (std::none_of(groups.begin(), groups.end(), has_it)) return;
  rows[0].insert(rows[0].end(), {fmt::format("{} %", name), "best", "ETT"});
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Score& found = groups[i].*score;
    const auto best = std::max_element(found.accuracy.begin(), found.accuracy.end());
    rows[i + 1].insert(rows[i + 1].end(), {with_interval(found.accuracy, 2),
                                           best == found.accuracy.end() ? "-" : fmt::format("{:.2f}", *best),
                                           with_interval(found.epoch, 1)});
  }
}

// The same for the dispatch entropy, which runs on data of known clusters have.
void add_dispatch_entropy(const std::vector<Group>& groups, std::vector<std::vector<std::string>>& rows) {
  const auto has_it = [](const Group& group) { return !group.dispatch_entropy.empty(); };
  if (std::none_of(groups.begin(), groups.end(), has_it)) return;
  rows[0].push_back("dispatch entropy");
  for (std::size_t i = 0; i < groups.size(); ++i) rows[i + 1].push_back(with_interval(groups[i].dispatch_entropy, 3));
}

}  // namespace

int study_table(const Study& study, const CommandLine& line) {
  std::vector<std::string> heading;
  for (const std::string& key : study.axis_keys)
    if (key != "run.seed") heading.push_back(key);
  const std::size_t num_axes = heading.size();
  std::vector<Group> groups;  // in the order of the runs
  std::map<std::vector<std::string>, std::size_t> place_of;
  StudyInputs inputs(study.folder());
  for (const StudyRun& run : study.runs) {
    std::vector<std::string> axes;
    for (std::size_t i = 0; i < num_axes; ++i) axes.push_back(cell_of(run, heading[i]));
    const auto [place, is_new] = place_of.emplace(axes, groups.size());
    if (is_new) groups.push_back({.axes = axes});
    const RunReport report = look_at(study, run, inputs);
    groups[place->second].add(report);
    if (report.state == RunState::kForeign)
      fmt::print(stderr, "switchyard: warning: {} is left out: {}\n", run.name, report.detail);
  }
  heading.insert(heading.end(),
                 {"runs", "test accuracy %", "test loss", "seconds an epoch", "parameters stored", "active"});
  std::vector<std::vector<std::string>> rows{heading};
  Index num_runs = 0, num_done = 0;
  for (const Group& group : groups) {
    num_runs += group.num_runs, num_done += group.num_done;
    std::vector<std::string>& row = rows.emplace_back(group.axes);
    row.insert(row.end(), {group.num_done == group.num_runs ? std::to_string(group.num_runs)
                                                            : fmt::format("{} of {}", group.num_done, group.num_runs),
                           with_interval(group.accuracy, 2), with_interval(group.loss, 4),
                           with_interval(group.seconds, 2), group.stored, group.active});
  }
  add_score("M_A", &Group::memorisation, groups, rows);
  add_score("G_A", &Group::generalisation, groups, rows);
  const bool has_scores = rows[0].size() > heading.size();
  add_dispatch_entropy(groups, rows);
  TextTable table(rows[0]);
  for (std::size_t i = 0; i < num_axes; ++i)
    if (!std::all_of(groups.begin(), groups.end(), [&](const Group& group) { return is_number(group.axes[i]); }))
      table.left_align(i);
  for (std::size_t i = 1; i < rows.size(); ++i) table.add(rows[i]);
  table.print(line.options.count("markdown") > 0);
  fmt::print(
      "\n{}, {} of {} done. Mean {} half the 95 % confidence interval (Student's t) where there is more than one "
      "run.\n",
      plural(num_runs, "run"), num_done, num_runs, speaks_unicode() ? "±" : "+-");
  if (has_scores)
    fmt::print(
        "M_A: best accuracy on the training split; G_A: accuracy on the test split when that on the validation split "
        "was best; best: of the runs; ETT: epochs elapsed when it was observed.\n");
  return 0;
}

}  // namespace switchyard
