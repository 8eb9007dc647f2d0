// What `switchyard bench --help` and `switchyard bench NAME --help` print.
#include <algorithm>

#include "app/bench.hpp"
#include "app/commands.hpp"

namespace switchyard {

namespace {

struct Part {
  const char *name, *synopsis, *text;
};

constexpr Part kParts[] = {
    {"step", "switchyard bench step [--config FILE] [--steps N] [--profile] [--KEY VALUE ...]\n",
     R"(step: times N training steps of the configured model on data of its shape, and in turn with them the matrix
products alone, at the model's own shapes, as oneDNN computes them, or on a GPU cuBLASLt. Medians. The first two steps
(five on a GPU with a gate) do not count, nor those whose launches are recorded for later ones (compute.graphs).

  training step    seconds of a step, images/s over all ranks, GFLOP/s of the model's matrix products
  products alone   the same at their rate, if nothing but the products took time: the ceiling
  share            the step's GFLOP/s over theirs: 1 would mean that all else costs nothing
  large product    on a GPU: its GFLOP/s in one product of 8192 x 8192 x 8192 in compute.dtype (where that takes long,
                   half as wide, a quarter and so on); share of that: the step's
  rank 0           where that rank's median step went: exchange carries tokens to experts and back, reduce sums
                   gradients over ranks, wait is for slower ranks, compute the rest

--profile adds a table of rank 0's milliseconds a step. They are means, so that its rows add up, and may differ from
the medians above. Rows are kernels, the longest first; columns are phases of the step: load (images of a microbatch),
forward, backward, wait (for slower ranks), reduce (sums over ranks), update (clipping and optimiser), step (all of
them). Kernels are done one by one, a GPU's launched and waited for: compute.graphs has no part in it, and microbatches
take no turns (parallel.overlap). Kernels are named as in kernels/api; three rows need a word:

  pack_b           weights brought into the order that products read, once a step
  tree_carry       sums of gradients over microbatches that no product could add as it stored its own
  outside kernels  the rest of a phase: messages between ranks, waiting, and the code between kernels
)"},
    {"products", "switchyard bench products [--config FILE] [--steps N] [--KEY VALUE ...]\n",
     R"(products: times this program's matrix products and oneDNN's in turn, N times each, on one thread of each rank, and
prints rank 0's medians. Products are C = A B of (m x k) and (k x n), A^T or B^T where the operand is stored across:

  own, oneDNN      GFLOP/s
  ratio            own over oneDNN; below the table the same of all products of a microbatch together

On a GPU the program's products are cuBLASLt's, and stand beside the large product of bench step, by the GPU's clock.
)"},
    {"kernels",
     "switchyard bench kernels [--config FILE] [--steps N] [--output FILE.h5 [--overwrite]] [--KEY VALUE ...]\n",
     R"(kernels: times every kernel at the shapes that one microbatch gives it, on one thread of each rank, in processor
time, and in turn with it its limit: for products oneDNN's, for attention and visits of leaves the processor's
multiply-adds, for the rest reading and writing the same arrays once. Medians of N, rank 0's:

  microseconds     of one call
  MFLOP, MB        work of one call: operations, or bytes read and written once
  GFLOP/s, GB/s    work over time
  limit, share     that rate of the limit, and the kernel's over it
  p = 0.1          with dropout. Its random numbers, and exponentials (gelu, attention), are limits of their own

Arrays of a microbatch lie in the caches, where reading and writing is so fast that most kernels of the third table are
bound by their instructions, not by memory: patchify fetches one pixel at a time through a table, sort_by_expert counts
tokens one by one, layernorm passes over a row three times, column_sum loads and stores a sum for each number that the
limit only loads, and sum_of_squares adds in double to sums that wait for one another. With few --steps, or tiny
shapes, limits are noisy: a share above 1, or one that changes from run to run, says no more than that.

With compute.device = cuda it times the GPU's kernels by the GPU's clock, many calls in a row. The limit is then bench
step's large product for products, attention and visits of leaves, and for the rest a copy within the GPU that reads
and writes as many bytes. What takes less than some 5 microseconds shows the time of a launch. Shares are above 1 where
a kernel's arrays stay in the GPU's second-level cache and the copy's do not, or where it only reads.
)"},
    {"exchange",
     "switchyard bench exchange --config FILE --parallel.experts P [--steps N] [--output FILE.h5 [--overwrite]]\n"
     "                          [--KEY VALUE ...]\n",
     R"(exchange: times the tokens' way to their experts and back, in turn with MPI_Alltoallv of the same messages, from 16
tokens a rank to several microbatches. Needs at least two ranks and parallel.experts above 1. Each step counts as its
slowest rank, and columns are medians over N steps:

  load of experts  even: tokens in turn to every expert; half to one: every other token to the first expert
  tokens           of each rank
  KB a rank sends  to other ranks, there and back together, of the busiest rank
  microseconds     of the exchange (there and back), and of MPI_Alltoallv
  MB/s             those KB over that time
  ratio            exchange over MPI_Alltoallv, 1 or less is good: of the medians, and (least) of the fastest step of
                   each, which other programs disturbed least
  counts           microseconds of the exchange in which ranks tell each other how many tokens come
  kernels          microseconds beside it: the kernels that sort rows by expert before, and restore their order after

With compute.device = cuda rows lie in the GPU's memory and travel as parallel.exchange says, NCCL or by way of host
memory; MPI_Alltoallv moves as many bytes from host memory to host memory, which NCCL should beat. Rows travel as in
training: with compute.dtype = bf16 on a GPU rounded to bf16 and padded to 8 elements, else fp32.
)"},
    {"routers", "switchyard bench routers --config FILE [--steps N] [--KEY VALUE ...]\n",
     R"(routers: times training steps of the dense model and of every router, each with one expert per token and its other
keys as they come, so with the same active parameters but for the gate. For each router N rounds, a step of the dense
model and then one of its own:

  seconds          of a step, median over the rounds
  median           of the dense model's time over the router's within each round; least and most the same
  fastest          the same of the fastest step of each, which other programs disturbed least
)"},
    {"inference",
     "switchyard bench inference [--config FILE] [--leaves N,N,...] [--batches N,N,...] [--steps N]\n"
     "                           [--output FILE.h5 [--overwrite]] [--KEY VALUE ...]\n",
     R"(inference: times the evaluation of networks of one training width w: dense, w hidden units; moe, w / leaf experts of
`leaf` units each, of which a token visits the top 1 (and, with ffn.kind = moe and a router that takes more, such as
ffn.router = top_k, as many as ffn.top_k); fff, a tree over w / leaf leaves, of which a token visits one. w is
ffn.hidden, or 2^ffn.depth * ffn.leaf where ffn.kind = fff and ffn.depth is above 0. First of layers alone, then of
whole models; on one thread, then on parallel.threads or, where that is 1, on every processor; or on the GPU
(compute.device = cuda), by its own clock. Hidden units are relu in all of them. One rank, whatever parallel.experts.
Each network N times in turn with the dense one:

  leaf             hidden units that a token visits in an expert or a leaf
  batch            tokens of a layer, images of a model. A model evaluates more than train.microbatch images in
                   microbatches, as eval does
  microseconds     of a batch, median; /s: batch over that time
  of dense         the same of the dense network, in turn with this row
  speed-up         the dense network's time over its own: of the medians, and (fastest) of the fastest step of each,
                   which other programs disturbed least
  weights          MB of parameters, and of the copies of them in the order that products read
  activations      the most that was held at a time beside the layer's input
)"},
};

constexpr const char* kOptions =
    R"(  --config FILE      the model and how it trains, later files win; without it the defaults of switchyard train --help
  --steps N          repetitions, 10 unless told: a whole number of at least 1
)";
constexpr const char* kProfileOption =
    "  --profile          step: also where the time of a step goes on rank 0, by kernel and by phase\n";
constexpr const char* kInferenceOptions =
    R"(  --leaves N,N,...   inference: units of a leaf; of 32, 16, 8, 4, 2 and 1 those that halve w, unless told
  --batches N,N,...  inference: batch sizes; 1,4,16,64,256,1024,2048 unless told
)";
constexpr const char* kFileOptions =
    R"(  --output FILE.h5   kernels, exchange, inference: the printed table as an HDF5 file as well, which switchyard inspect
                     describes
  --overwrite        replace FILE.h5, if a benchmark wrote it
)";
constexpr const char* kKeyOption =
    "  --KEY VALUE        any configuration key, over those of the files: switchyard train --help explains them\n";

}  // namespace

// Of the benchmark that a word names, or of all.
std::string bench_help(const Words& arguments) {
  std::string name, synopses, texts;
  for (const Part& part : kParts)
    if (std::find(arguments.begin(), arguments.end(), part.name) != arguments.end()) name = part.name;
  const bool is_part = !name.empty();
  for (const Part& part : kParts) {
    if (is_part && part.name != name) continue;
    synopses += part.synopsis;
    texts += std::string("\n") + part.text;
  }
  std::string options = kOptions;
  if (!is_part || name == "step") options += kProfileOption;
  if (!is_part || name == "inference") options += kInferenceOptions;
  if (!is_part || name == "kernels" || name == "exchange" || name == "inference") options += kFileOptions;
  return synopses + texts + "\n" + options + kKeyOption +
         (is_part ? "\nThe other benchmarks: switchyard bench --help\n"
                  : "\nOne of them alone: switchyard bench step --help\n");
}

}  // namespace switchyard
