// The parts of `switchyard bench`.
#pragma once

#include <string>
#include <vector>

#include "app/world.hpp"

namespace switchyard {

struct BenchOptions {
  Index steps = 10;
  bool profile = false;
  std::string output;  // of kernels, exchange and inference: a file to write; empty: none
  bool overwrite = false;
  std::vector<Index> leaves, batches;  // of inference; empty: its own
  bool has_files = false;              // --config was given
  std::string command;                 // as it was given
};

// The first lines of what a benchmark prints, without the last line's end: the model.
std::string bench_heading(const Config& config, const BenchOptions& options);

// Training steps and, in turn with them, oneDNN's products alone; prints both rates and their ratio.
int bench_step(World& world, const Config& config, const BenchOptions& options);

// This program's matrix products against oneDNN's, at the model's own shapes, `steps` times in turn. Every rank
// computes at the same time, rank 0 prints its own rates.
int bench_products(World& world, const Config& config, const BenchOptions& options);

// Every kernel at the model's own shapes against the limit that the machine sets it, in turn, on one thread of each
// rank.
int bench_kernels(World& world, const Config& config, const BenchOptions& options);

// The way to the experts and back against a bare MPI_Alltoallv of the same messages, in turn, from a few tokens to
// several microbatches.
int bench_exchange(World& world, const Config& config, const BenchOptions& options);
// Fails with kUsage where nothing would travel.
void require_a_journey(const World& world, const Config& config, const BenchOptions& options);

// A training step of the dense model and of every router with one expert per token, in turn.
int bench_routers(World& world, const Config& config, const BenchOptions& options);

// Evaluation of the dense network, mixtures and trees of the same training width, in turn, layers alone and whole
// models, over batch sizes, on one thread and on all.
int bench_inference(World& world, const Config& config, const BenchOptions& options);
// Fails with kUsage where there is nothing to compare.
void require_one_rank(const World& world, const Config& config, const BenchOptions& options);

double median(std::vector<double> values);

}  // namespace switchyard
