// A run's configuration: typed values, and one table of keys (keys.cpp) for files, command line, printing and --help.
#pragma once

#include <bit>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

struct Config {
  struct Run {
    std::string name = "run";
    std::string out = "runs";  // a run's files lie in out/name/
    std::uint64_t seed = 1;
    Index epochs = 1;
    Index steps = 0;                // above 0: so many steps instead of epochs
    Index log_every = 1;            // steps between rows of steps/* in the results
    Index eval_every = 1;           // epochs between evaluations; 0: only at the end
    bool measure_training = false;  // evaluate the training split too
  } run;
  struct Data {
    std::string kind = "fashion-mnist";  // fashion-mnist | mnist | cifar10 | cifar100 | hdf5 | synthetic | clusters
    std::string path;                    // folder or file; empty: the kind's default place
    Index limit = 0;                     // above 0: the first so many samples of each split
    double validation = 0;               // part of the training split kept apart
    std::uint64_t validation_seed = 1;   // apart from run.seed: repeated seeds see the same split
    Index crop_padding = 0;              // random crop after padding by so many pixels; 0: none
    bool flip = false;                   // random horizontal flip
    bool flip_vertical = false;          // random vertical flip
    double rotation = 0;                 // random rotation within +- so many degrees
    double scaling = 0;                  // random size within 1 +- this
    bool normalize = true;               // (v - mean) / deviation per channel
    double mean = 0.5, deviation = 0.5;  // of pixel values in [0, 1]
    // Synthetic data only:
    Index synthetic_samples = 1024, synthetic_size = 28, synthetic_channels = 1, synthetic_classes = 10;
    Index clusters_setting = 1;        // of the four of the clusters
    std::uint64_t synthetic_seed = 1;  // apart from run.seed: repeated seeds see the same data
  } data;
  struct Model {
    std::string kind = "vit";
    Index layers = 4, width = 64, heads = 4, patch = 7;
    Index head_hidden = 0;  // hidden width of the classification head; 0: one linear layer
    Index positions = 0;    // rows of the position table; 0: as many as patches
  } model;
  struct Ffn {
    std::string kind = "dense";  // dense | moe | fff
    Index hidden = 256;
    std::string activation = "gelu";  // gelu | relu | cube | identity
    Index depth = 0, leaf = 32;       // of a tree; depth 0: so deep that leaves are `hidden` wide together
    double hardening = 3, region_leak = 0;
    std::string tree = "soft";  // soft | hard
    Index experts = 4;
    Index every = 1;                          // every so many blocks have a mixture, the last of each such run
    Index shared = 0;                         // experts that every token visits beside the routed ones
    std::string router = "switch";            // a row of the table of routers
    Index top_k = 2;                          // experts per token
    std::string scores = "softmax";           // softmax | sigmoid
    bool renormalise = false;                 // weights of a token's experts sum to 1
    std::string granularity = "batch";        // random routing: batch | sample | token | balanced
    std::string draw = "model";               // random routing: model | layer
    std::string hash = "position";            // hash routing: position | content
    std::string inference = "route";          // route | average
    std::string expert_init = "independent";  // same | independent
    double gate_init = 1, gate_tilt = 0, gate_jitter = 0, gate_dropout = 0;
    double balance_loss = -1, z_loss = 0, importance_loss = -1, load_loss = -1;  // -1: the router's own
    double noise_floor = 0.01;                                                   // of noisy_top_k
    double bias_rate = 1e-3;                                                     // loss-free balancing
    double capacity_train = 0, capacity_eval = 0;  // times an even share of the tokens; 0: no limit
    std::string capacity_order = "choice";         // choice | token
    double expert_dropout = -1;                    // inside experts; -1: train.dropout
    double gating_dropout = 0;
    Index home_ranks = 1, home_experts = 1;  // the layout by which gating dropout keeps tokens at home
    double consistency = 0;                  // weight of the consistency loss of two passes; 0: one pass
    std::string consistency_kind = "thor";   // thor | adamix
  } ffn;
  struct Train {
    Index batch = 128;
    Index microbatch = 16;
    std::string start;               // checkpoint with the parameters to begin with; empty: drawn from run.seed
    std::string optimizer = "adam";  // adam | adamw | sgd | normalized
    double lr = 1e-3, weight_decay = 0, momentum = 0.9, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    double gate_lr = 0.1;             // of what is not in experts (normalized)
    std::string schedule = "cosine";  // constant | cosine
    Index schedule_epochs = 0;        // length of the cosine; 0: the run's own
    Index warmup_steps = 0;           // linear from 0
    double clip = 0;                  // global gradient norm; 0: no clipping
    double dropout = 0.1;
    double input_dropout = 0;               // of the tokens that the first block sees
    Index patience = 0;                     // epochs without a better accuracy that end the run; 0: none do
    Index plateau = 0;                      // epochs without a better accuracy that reduce the rate; 0: none do
    double plateau_factor = 0.5;            // what the rate is multiplied by
    std::string plateau_of = "validation";  // training | validation
  } train;
  struct Parallel {
    Index experts = 1;               // expert-parallel size P
    Index threads = 1;               // per rank
    std::string reduction = "tree";  // tree | library
    std::string exchange = "auto";   // auto | nccl | host: how arrays of GPUs travel
    std::string overlap = "auto";    // auto | on | off: of what travels and what is computed
    Index timeout = 600;             // seconds that a collective waits for a rank
  } parallel;
  struct Compute {
    std::string device = "cpu";   // cpu | cuda
    std::string dtype = "fp32";   // fp32 | bf16
    bool tf32 = false;            // of fp32's products
    std::string graphs = "auto";  // auto | off: a microbatch's launches as one
  } compute;
  struct Checkpoint {
    Index every = 0;  // steps; 0: at the end of every epoch
    Index keep = 2;
  } checkpoint;
};

// Levels of a tree whose 2^levels leaves have ffn.leaf hidden units each, ffn.hidden together where ffn.depth is 0.
inline Index tree_depth(const Config::Ffn& ffn) {
  return ffn.depth > 0 ? ffn.depth : std::bit_width(static_cast<std::uint64_t>(ffn.hidden / ffn.leaf)) - 1;
}

// What ranks share out: a block's experts, the leaves of its tree, or nothing.
inline Index experts_or_leaves(const Config& config) {
  if (config.ffn.kind == "moe") return config.ffn.experts;
  return config.ffn.kind == "fff" ? Index{1} << tree_depth(config.ffn) : 0;
}

// Layers the files in their order over `base`, then the overrides (key, value); the later one wins. Each value
// is checked by itself; call validate() for the rules between keys.
// Throws Error (kUsage) naming file, line, key, what was found and what is allowed. Adds the keys that files set to
// `given`, where that is not null.
Config load_config(const std::vector<std::string>& files,
                   const std::vector<std::pair<std::string, std::string>>& overrides = {}, Config base = {},
                   std::set<std::string>* given = nullptr);

// The file's text. Throws Error (kUsage) where it cannot be read.
std::string read_config_file(const std::string& path);

// The effective configuration as INI text: every key, in the table's order, numbers exact. parse_text() gives it back;
// keys that the text lacks take their defaults. `source` stands for the file's name in errors. given: the keys that the
// text has are added to it.
std::string to_text(const Config& config);
Config parse_text(const std::string& text, const std::string& source = "configuration text",
                  std::set<std::string>* given = nullptr);

// The configuration that a file of this program holds, which may be older than some keys: those that it lacks take what
// the program did when it wrote the file.
Config parse_stored(const std::string& text, const std::string& source = "configuration text");
// The same of a configuration whose own file has the keys `given`; the others are defaults.
void set_older_values(Config& config, const std::set<std::string>& given);

// Every key with its default, allowed values and a line of explanation, wrapped to `width` columns.
std::string help_text(int width = 100);

// Rules between keys that need neither data nor ranks. Throws Error (kUsage).
void validate(const Config& config);

// The rank counts that keep one summation tree: with M = batch / microbatch, a world that divides M and is a power of
// two, and that parallel.experts divides. (reduction = library: any divisor of M.) Throws Error (kUsage).
void check_ranks(const Config& config, int world);

// Keys that differ and change what is trained or measured, by more than rounding (compute.device), each as
// "train.lr: 0.001 -> 0.002" (before -> after).
// run.epochs and run.steps count only where the learning rate depends on the length of the run, run.eval_every only
// where evaluations steer the training (train.patience, train.plateau).
std::vector<std::string> result_differences(const Config& before, const Config& after);

}  // namespace switchyard
