// switchyard study plan: what a study's runs will cost, before any starts.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "app/child_process.hpp"
#include "app/renewed_line.hpp"
#include "app/session.hpp"
#include "app/study.hpp"
#include "app/study_folder.hpp"
#include "app/text.hpp"
#include "app/text_table.hpp"
#include "core/error.hpp"
#include "model/products.hpp"
#include "network/model_options.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

struct DataSize {
  ImageShape shape;
  Index train = 0, test = 0, validation = 0;
};

// Files of these kinds are of one size, and need not be here yet.
DataSize size_of_data(const Config& config) {
  const Config::Data& data = config.data;
  DataSize size{known_shape(data_options(config)).value_or(ImageShape{}), 0, 0};
  if (data.kind == "synthetic") {
    size.train = data.synthetic_samples, size.test = std::max<Index>(1, data.synthetic_samples / 4);
  } else if (data.kind == "clusters") {
    size.train = size.test = 16000;
  } else if (data.kind == "hdf5") {
    const Dataset loaded = load_dataset(data_options(config));
    return {{loaded.height, loaded.width, loaded.channels, loaded.classes},
            loaded.train.count,
            loaded.test.count,
            loaded.validation.count};
  } else {
    size.train = data.kind.starts_with("cifar") ? 50000 : 60000, size.test = 10000;
  }
  if (data.limit > 0) size.train = std::min(size.train, data.limit), size.test = std::min(size.test, data.limit);
  size.validation = num_validation_samples(data.validation, size.train);
  size.train -= size.validation;
  return size;
}

struct Measured {
  double seconds_per_step = 0, seconds_per_tested_sample = 0;
  Index peak_bytes = 0;  // of a rank
};

struct Cost {
  Index steps = 0, samples_evaluated = 0;
  double flop = 0;
  Index bytes = 0;      // of a rank
  double seconds = -1;  // below 0: not known
};

// Parameters, packed weights, gradient sums (a level for each doubling of a rank's microbatches) and Adam's two states:
// what is there whatever the size of a microbatch.
Index least_bytes(const Config& config, const ParameterTable& table, int ranks) {
  Index held = 0;
  for (ParameterId id = 0; id < table.size(); ++id)
    held += table[id].per_expert ? table[id].size() / config.parallel.experts : table[id].size();
  const auto microbatches = static_cast<double>(config.train.batch / config.train.microbatch / ranks);
  const auto levels = static_cast<Index>(std::log2(std::max(1.0, microbatches))) + 1;
  const Index states = config.train.optimizer == "sgd" ? 1 : 2;
  return held * Index{sizeof(float)} * (2 + levels + states);
}

Cost cost_of(const StudyRun& run, const DataSize& data) {
  const Config& config = run.config;
  if (config.train.batch > data.train)
    fail_usage("plan: {}: train.batch = {} is more than the {} training samples: take a smaller batch or more data",
               run.name, config.train.batch, data.train);
  ParameterTable table;
  const auto model = make_model(model_options(config, data.shape), table);
  const auto batch = static_cast<double>(config.train.batch);
  double flop_per_step = batch * attention_training_flop(model->options());
  for (const ProductShape& product : training_products(model->options(), config.train.batch))
    flop_per_step += product.flop();
  Cost cost;
  const Index epoch_steps = data.train / config.train.batch, eval_steps = config.run.eval_every * epoch_steps;
  cost.steps = config.run.steps > 0 ? config.run.steps : config.run.epochs * epoch_steps;
  // One after the last step.
  const Index evaluations = eval_steps > 0 ? (cost.steps + eval_steps - 1) / eval_steps : 1;
  cost.samples_evaluated = evaluations * (data.test + data.validation + (config.run.measure_training ? data.train : 0));
  cost.flop = flop_per_step * static_cast<double>(cost.steps);
  cost.bytes = least_bytes(config, table, run.ranks);
  return cost;
}

// A few steps of the run on made-up images of the same shape.
Config short_run(const Config& config, const DataSize& data, const std::string& folder) {
  Config result = config;
  result.run.out = folder, result.run.name = "measure", result.run.seed = 1;
  result.run.steps = 4, result.run.epochs = 1, result.run.log_every = 1, result.run.eval_every = 0;
  result.run.measure_training = false, result.data.validation = 0;
  result.train.patience = 0, result.train.plateau = 0;
  result.train.lr = 1e-6, result.train.schedule_epochs = 0, result.train.warmup_steps = 0;
  result.checkpoint.every = 1000000;
  if (data.shape.height != data.shape.width || data.shape.channels > 4) return result;
  result.data = {};
  result.data.crop_padding = config.data.crop_padding, result.data.flip = config.data.flip;
  result.data.flip_vertical = config.data.flip_vertical;
  result.data.rotation = config.data.rotation, result.data.scaling = config.data.scaling;
  result.data.kind = "synthetic";
  result.data.synthetic_samples = std::max<Index>(16, config.train.batch);
  result.data.synthetic_size = data.shape.height, result.data.synthetic_channels = data.shape.channels;
  result.data.synthetic_classes = data.shape.classes;
  return result;
}

// A folder that goes with its owner.
struct TemporaryFolder {
  std::string path = (fs::temp_directory_path() / "switchyard-plan-XXXXXX").string();
  TemporaryFolder() {
    if (mkdtemp(path.data()) == nullptr) fail("{}: this folder cannot be made: set TMPDIR to one with room", path);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

Measured measure(const Config& config, const StudyRun& run, const DataSize& data, const CommandLine& line,
                 const std::string& folder) {
  const fs::path file = fs::path(folder) / "run.cfg", log = fs::path(folder) / "log";
  write_text(file, to_text(config));
  fs::remove(log);
  ChildProcess process(training_words(line, run.ranks, file.string(), {"--overwrite"}), log);
  while (process.is_running() && num_signals() == 0) usleep(20000);
  if (num_signals() > 0) throw Error("plan: stopped", ExitCode::kStopped);
  const io::ResultsSummary results = io::describe_results(fs::path(folder) / "measure" / "results.h5");
  if (process.exit_code() != 0 || !results.last_step || results.evaluations.empty())
    fail("plan: a few steps of {} failed with exit code {}:\n{}", run.name, process.exit_code(), last_lines(log, 5));
  const Index tested = config.data.kind == "synthetic" ? size_of_data(config).test : data.test;
  return {results.last_step->seconds, results.evaluations.back().seconds / static_cast<double>(tested),
          process.peak_bytes()};
}

// Each shape of run once: what differs in seed, length or learning rate alone takes equally long.
void measure_all(const Study& study, const CommandLine& line, const std::vector<DataSize>& data,
                 std::vector<Cost>& costs) {
  const TemporaryFolder folder;
  RenewedLine progress(true);
  catch_study_signals();
  std::map<std::string, Measured> measured;
  for (std::size_t i = 0; i < study.runs.size(); ++i) {
    const StudyRun& run = study.runs[i];
    const Config config = short_run(run.config, data[i], folder.path);
    const auto [found, is_new] = measured.emplace(fmt::format("{}\n{}", run.ranks, to_text(config)), Measured{});
    if (is_new) {
      progress.show(fmt::format("measuring a few steps of {} ({} of {} runs)", run.name, i + 1, study.runs.size()));
      found->second = measure(config, run, data[i], line, folder.path);
    }
    const Measured& each = found->second;
    const ImageShape& shape = data[i].shape;
    costs[i].seconds = static_cast<double>(costs[i].steps) * each.seconds_per_step +
                       static_cast<double>(costs[i].samples_evaluated) * each.seconds_per_tested_sample;
    costs[i].bytes = each.peak_bytes +
                     (data[i].train + data[i].test + data[i].validation) * shape.height * shape.width * shape.channels;
  }
}

struct Unit {
  const char* name;
  double flop;
};

// The largest in which the dearest run is not below 1.
Unit unit_of(const std::vector<Cost>& costs) {
  double most = 0;
  for (const Cost& cost : costs) most = std::max(most, cost.flop);
  for (const Unit unit : {Unit{"EFLOP", 1e18}, Unit{"PFLOP", 1e15}, Unit{"TFLOP", 1e12}})
    if (most >= unit.flop) return unit;
  return {"GFLOP", 1e9};
}

// Until the last run ends, when each starts, in their order, as soon as there are cores for it.
double seconds_together(const Study& study, const std::vector<Cost>& costs) {
  std::multimap<double, int> ends;  // cores by the time that they are free again
  int used = 0;
  double now = 0, last = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const int cores = cores_of(study.runs[i]);
    while (!ends.empty() && used + cores > num_cores()) {
      now = ends.begin()->first;
      used -= ends.begin()->second;
      ends.erase(ends.begin());
    }
    ends.emplace(now + costs[i].seconds, cores);
    used += cores;
    last = std::max(last, now + costs[i].seconds);
  }
  return last;
}

// What runs lack before they can start, each once.
std::set<std::string> missing_data(const Study& study) {
  std::set<std::string> messages;
  for (const StudyRun& run : study.runs) try {
      require_data(data_options(run.config));
    } catch (const Error& error) {
      messages.insert(error.what());
    }
  return messages;
}

}  // namespace

int study_plan(const Study& study, const CommandLine& line) {
  const bool measures = line.options.count("no-measure") == 0;
  std::vector<DataSize> data;
  std::vector<Cost> costs;
  for (const StudyRun& run : study.runs) {
    data.push_back(size_of_data(run.config));
    costs.push_back(cost_of(run, data.back()));
  }
  if (measures) measure_all(study, line, data, costs);
  const Unit unit = unit_of(costs);
  TextTable table(
      {"run", "ranks", "threads", "steps", unit.name, measures ? "MiB a rank" : "MiB a rank, above", "time"});
  double flop = 0, seconds = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const StudyRun& run = study.runs[i];
    flop += costs[i].flop, seconds += costs[i].seconds;
    table.add({run.name, std::to_string(run.ranks), std::to_string(run.config.parallel.threads),
               group_digits(costs[i].steps), fmt::format("{:.4g}", costs[i].flop / unit.flop),
               group_digits(costs[i].bytes >> 20), measures ? duration(costs[i].seconds) : "-"});
  }
  table.print();
  fmt::print("\n{}: {}, {:.4g} {} of matrix products", study.name, plural(static_cast<Index>(study.runs.size()), "run"),
             flop / unit.flop, unit.name);
  if (measures)
    fmt::print("; {} one after another, about {} as they fit {}", duration(seconds),
               duration(seconds_together(study, costs)), plural(num_cores(), "core"));
  fmt::print("\n");
  for (const std::string& message : missing_data(study)) fmt::print("before it can run: {}\n", message);
  return 0;
}

}  // namespace switchyard
