// What upcycle and export share: a checkpoint of a dense model or of a mixture that becomes one of the other.
#pragma once

#include <memory>
#include <string>

#include "app/session.hpp"
#include "config/command_line.hpp"
#include "train/trainer.hpp"

namespace switchyard {

// --output and --overwrite, beside the options that the command has already.
void add_output_options(boost::program_options::options_description& own);

struct ConversionFiles {
  std::string from, to;
};
// The checkpoint that the command line names and its --output. Fails where one of them is missing.
ConversionFiles conversion_files(const char* command, const CommandLine& line);
// Fails on rank 0 where the output is the input, or is there already and --overwrite was not given. Apart from what
// every rank finds by itself, so that no two ranks have different complaints.
void check_output(const World& world, const CommandLine& line, const ConversionFiles& files);

// The checkpoint's own configuration. Fails where its ffn.kind is not `kind`; `instead` says what to do then.
Config checkpoint_config(const std::string& path, const std::string& kind, const std::string& instead);

// The mixture's configuration after `before`, the checkpoint's, was changed by files and keys of the command line.
// Fails where it cannot be the checkpoint's model as a mixture, or cannot run on so many ranks.
void check_mixture(const std::string& path, const Config& before, const Config& mixture, int num_ranks);

// Both models on these ranks, as they start, and the data of both. Collective.
struct ModelPair {
  ModelPair(World& world, const Config& mixture_config);

  Config mixture_config, dense_config;  // the same but for the section ffn and parallel.experts
  Dataset dataset;
  Session session;
  Mesh dense_mesh;
  std::unique_ptr<Trainer> dense, mixture;
};

// Writes the trainer's model as a checkpoint with the attribute origin, in a new folder where it has to be, and prints
// what it is. Collective.
void save_converted(World& world, Trainer& trainer, const Config& config, const std::string& path,
                    const std::string& origin);

}  // namespace switchyard
