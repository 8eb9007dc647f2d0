// A stable counting sort in three launches: every warp counts the experts of its own tile of consecutive assignments;
// one block adds up the counts, over tiles and over experts; the warps go over their tiles again, now with slots. A
// lane's place among the lanes of its warp comes from a vote, so nothing depends on which thread is first.
// Where first choices have room before second ones, three launches before these find in the same way, tiles then being
// of one choice after the other, what is dropped.
#include "kernels/cuda/sort_by_expert.hpp"

#undef NDEBUG  // the assertion below is this operation's error
#include <cassert>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kWarps = 2;            // of a block, each with a tile
constexpr int kMostCounters = 6144;  // of a warp: shared memory for more experts is not there, so blocks share them out
constexpr int kSumThreads = 1024;

bool goes_by_choice(const SortByExpert& args) { return args.capacity > 0 && args.top_k > 1; }

// So long that there are not too many counts where there are very many experts.
constexpr Index tile_size(Index num_experts) { return 512 * ceil_div(num_experts, 1024); }

struct Tiles {
  Index size = 0, count = 0;
  std::int32_t* counts = nullptr;      // (num_experts, tiles): in a tile; later, in all tiles before it
  std::int32_t* first_slot = nullptr;  // (num_experts)
  Index tokens = 0;                    // above 0: assignments in the order of choices, and of so many tokens in each

  __device__ Index assignment(const SortByExpert& args, Index place) const {
    if (tokens == 0) return place;
    const Index choice = place / tokens;
    return (place - choice * tokens) * args.top_k + choice;
  }
};

// The experts that a block counts, in which tiles.
struct Share {
  Index tile;
  int first_expert, num_experts;

  __device__ Share(const SortByExpert& args, const Tiles& tiles) {
    const auto blocks = static_cast<unsigned>(ceil_div(tiles.count, kWarps)), part = blockIdx.x / blocks;
    tile = static_cast<Index>(blockIdx.x % blocks) * kWarps + warp();
    first_expert = static_cast<int>(part) * kMostCounters;
    const int left = static_cast<int>(args.num_experts) - first_expert;
    num_experts = left < kMostCounters ? left : kMostCounters;
  }
};

// Calls visit(assignment, expert, counter, rank) for all assignments of a tile, in their order; counter: the expert's,
// -1 where it is not of the share; rank: what the counter, which counts them, was at that assignment.
template <typename Visit>
__device__ void rank_tile(const SortByExpert& args, const Tiles& tiles, const Share& share, std::int32_t* counters,
                          const Visit& visit) {
  const Index first = share.tile * tiles.size;
  const Index end = first + tiles.size < args.assignments ? first + tiles.size : args.assignments;
  const unsigned lanes_before = (1u << lane()) - 1;
  for (Index place_of_lane = first + lane(); place_of_lane - lane() < end; place_of_lane += kWarpSize) {
    const bool real = place_of_lane < end;
    const Index a = real ? tiles.assignment(args, place_of_lane) : 0;
    const int expert = real ? args.experts[a] : -1;
    const int place = expert - share.first_expert;
    const int counter = expert >= 0 && place >= 0 && place < share.num_experts ? place : -1;
    const unsigned same = __match_any_sync(kWholeWarp, counter);
    const int rank = counter < 0 ? 0 : counters[counter] + __popc(same & lanes_before);
    __syncwarp();
    if (counter >= 0 && (same & lanes_before) == 0) counters[counter] = rank + __popc(same);
    __syncwarp();
    if (real) visit(a, expert, counter, rank);
  }
}

__global__ void count_kernel(SortByExpert args, Tiles tiles) {
  const Share share(args, tiles);
  if (share.tile >= tiles.count) return;
  std::int32_t* counters = dynamic_shared<std::int32_t>() + warp() * share.num_experts;
  for (int e = lane(); e < share.num_experts; e += kWarpSize) counters[e] = 0;
  __syncwarp();
  rank_tile(args, tiles, share, counters, [&](Index, int expert, int, int) {
    // What an expert that does not exist comes to: the launch fails, and with it all that waits for the stream.
    assert(expert >= -1 && expert < args.num_experts && "sort_by_expert: no such expert; a router is wrong");
    (void)expert;
  });
  for (int e = lane(); e < share.num_experts; e += kWarpSize)
    tiles.counts[(share.first_expert + e) * tiles.count + share.tile] = counters[e];
}

// Of the lanes up to and with the own one.
__device__ std::int32_t running_sum(std::int32_t x) {
  for (int step = 1; step < kWarpSize; step *= 2) {
    const std::int32_t before = __shfl_up_sync(kWholeWarp, x, static_cast<unsigned>(step));
    if (lane() >= step) x += before;
  }
  return x;
}

// A warp's expert: its counts become sums over the tiles before; returns that over all tiles.
__device__ std::int32_t sum_over_tiles(const Tiles& tiles, Index expert) {
  std::int32_t* counts = tiles.counts + expert * tiles.count;
  std::int32_t before = 0;
  for (Index first = 0; first < tiles.count; first += kWarpSize) {
    const Index tile = first + lane();
    const std::int32_t own = tile < tiles.count ? counts[tile] : 0, sum = running_sum(own);
    if (tile < tiles.count) counts[tile] = before + sum - own;
    before += __shfl_sync(kWholeWarp, sum, kWarpSize - 1);
  }
  return before;
}

// One block.
__global__ void __launch_bounds__(kSumThreads) sum_counts_kernel(SortByExpert args, Tiles tiles) {
  constexpr int kSumWarps = kSumThreads / kWarpSize;
  for (Index expert = warp(); expert < args.num_experts; expert += kSumWarps) {
    const std::int32_t wanted = sum_over_tiles(tiles, expert);
    const auto kept = args.capacity == 0 || wanted < args.capacity ? wanted : static_cast<std::int32_t>(args.capacity);
    if (lane() > 0) continue;
    args.tokens_per_expert[expert] = kept;
    if (args.dropped_per_expert) args.dropped_per_expert[expert] = wanted - kept;
  }
  __syncthreads();
  __shared__ std::int32_t sum_of_warp[kSumWarps];
  std::int32_t first_slot = 0;
  for (Index first = 0; first < args.num_experts; first += kSumThreads) {
    const Index expert = first + threadIdx.x;
    const std::int32_t own = expert < args.num_experts ? args.tokens_per_expert[expert] : 0, sum = running_sum(own);
    if (lane() == kWarpSize - 1) sum_of_warp[warp()] = sum;
    __syncthreads();
    for (int w = 0; w < warp(); ++w) first_slot += sum_of_warp[w];
    if (expert < args.num_experts) tiles.first_slot[expert] = first_slot + sum - own;
    for (int w = warp(); w < kSumWarps; ++w) first_slot += sum_of_warp[w];
    __syncthreads();
  }
}

// Calls visit(assignment, expert, rank) for the assignments of a tile that are this share's to decide; rank: among all
// of the expert; expert -1: the assignment was not made.
template <typename Visit>
__device__ void rank_among_all(const SortByExpert& args, const Tiles& tiles, const Visit& visit) {
  const Share share(args, tiles);
  if (share.tile >= tiles.count) return;
  std::int32_t* counters = dynamic_shared<std::int32_t>() + warp() * share.num_experts;
  for (int e = lane(); e < share.num_experts; e += kWarpSize)
    counters[e] = tiles.counts[(share.first_expert + e) * tiles.count + share.tile];
  __syncwarp();
  rank_tile(args, tiles, share, counters, [&](Index a, int expert, int counter, int rank) {
    if (counter >= 0 || (expert < 0 && share.first_expert == 0)) visit(a, expert, rank);
  });
}

__device__ bool has_room(const SortByExpert& args, int expert, int rank) {
  return expert >= 0 && (args.capacity == 0 || rank < args.capacity);
}

__global__ void place_kernel(SortByExpert args, Tiles tiles) {
  rank_among_all(args, tiles, [&](Index a, int expert, int rank) {
    const bool kept = has_room(args, expert, rank);
    const std::int32_t slot = kept ? tiles.first_slot[expert] + rank : -1;
    args.slot_of_assignment[a] = slot;
    if (kept) args.assignment_of_slot[slot] = static_cast<std::int32_t>(a);
  });
}

// kept: the experts, -1 where an assignment is dropped.
__global__ void keep_kernel(SortByExpert args, Tiles tiles, std::int32_t* kept) {
  rank_among_all(args, tiles,
                 [&](Index a, int expert, int rank) { kept[a] = has_room(args, expert, rank) ? expert : -1; });
}

// One sort; `last` is given its shape, and decides on each assignment.
template <typename Last>
void sort(const Context& context, const SortByExpert& args, Index tokens, std::int32_t* room, const Last& last) {
  Tiles tiles{.size = tile_size(args.num_experts)};
  tiles.count = ceil_div(args.assignments, tiles.size);
  tiles.tokens = tokens;
  tiles.first_slot = room;
  tiles.counts = room + args.num_experts;
  const Index counters = args.num_experts < kMostCounters ? args.num_experts : kMostCounters;
  const LaunchShape shape{.blocks = ceil_div(tiles.count, kWarps) * ceil_div(args.num_experts, kMostCounters),
                          .threads = kWarps * kWarpSize,
                          .shared_bytes = kWarps * counters * Index{sizeof(std::int32_t)}};
  launch(context, shape, count_kernel, args, tiles);
  launch(context, {.blocks = 1, .threads = kSumThreads}, sum_counts_kernel, args, tiles);
  last(shape, tiles);
}

}  // namespace

Index sort_room(Index assignments, Index num_experts) {
  return num_experts * (ceil_div(assignments, tile_size(num_experts)) + 1);
}

void sort_by_expert(const Context& context, const SortByExpert& args, std::int32_t* room) {
  sort(context, args, 0, room,
       [&](const LaunchShape& shape, const Tiles& tiles) { launch(context, shape, place_kernel, args, tiles); });
}

void sort_by_expert(const Context& context, const SortByExpert& args) {
  const Index own_room = sort_room(args.assignments, args.num_experts);
  if (!goes_by_choice(args)) return sort_by_expert(context, args, workspace<std::int32_t>(context, own_room));
  auto* room = workspace<std::int32_t>(context, own_room + args.assignments);
  std::int32_t* kept = room + own_room;
  sort(context, args, args.assignments / args.top_k, room,
       [&](const LaunchShape& shape, const Tiles& tiles) { launch(context, shape, keep_kernel, args, tiles, kept); });
  SortByExpert of_kept = args;
  of_kept.experts = kept;
  of_kept.capacity = 0;
  of_kept.dropped_per_expert = nullptr;
  sort_by_expert(context, of_kept, room);
}

}  // namespace switchyard::kernels::cuda
