// Two microbatches take turns while rows travel on streams of a GPU, the emulated one, which does a stream's work as
// late as it may.
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/api/device.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/cuda/emulated/streams.hpp"
#include "routing/exchange.hpp"

namespace switchyard {
namespace {

// Gives exchanges to the context's stream, as NCCL does, and returns. The other rank sends what this one does.
class OnStreams final : public Communicator {
 public:
  OnStreams() : Communicator(0, {0, 1}) {}

  std::vector<std::string> begun, done;

  void exchange(std::string_view, std::span<const Transfer>) override {}
  void exchange_arrays(const Context& context, std::string_view what, std::span<const Transfer> transfers,
                       const Meanwhile& meanwhile) override {
    begun.emplace_back(what);
    const std::vector<Transfer> given(transfers.begin(), transfers.end());
    emulated::give(static_cast<cudaStream_t>(context.stream), [this, given, name = begun.back()] {
      for (const Transfer& each : given)
        std::memcpy(each.receive, each.send, static_cast<std::size_t>(each.send_bytes));
      done.push_back(name);
    });
    meanwhile();
  }
  std::unique_ptr<Communicator> split(int) override { return nullptr; }
  void set_timeout(Index) override {}
  void all_reduce(const Context&, float*, Index) override {}
};

using Names = std::vector<std::string>;
constexpr Index kTokens = 4;

TEST(ExchangeTurns, AMicrobatchWaitsForItsOwnRowsAlone) {
  const kernels::Stream computing(Device::kCuda, kernels::Priority::kUsual);
  const kernels::Stream travelling[] = {{Device::kCuda, kernels::Priority::kHigh},
                                        {Device::kCuda, kernels::Priority::kHigh}};
  const Context context{.device = Device::kCuda, .stream = computing.get()};
  RoutePlan plan;
  plan.tokens = kTokens;
  plan.num_experts = 2;
  plan.tokens_per_expert = {2, 2};
  plan.same_counts_everywhere = true;
  OnStreams group;
  PhaseSeconds seconds;
  Turns turns(2);
  turns.take([&](int strand) {
    kernels::Arena arena(Device::kCuda);
    auto* ids = arena.take<std::int32_t>(kTokens);
    auto* slots = arena.take<float>(kTokens);
    const std::vector<std::int32_t> own_ids = {strand, 10, 20, 30};
    const std::vector<float> own_slots = {0.5f, 1, 2, static_cast<float>(strand)};
    kernels::copy_to_device(context, ids, own_ids.data(), kTokens * 4);
    kernels::copy_to_device(context, slots, own_slots.data(), kTokens * 4);

    Exchange exchange(context, group, plan, seconds, {&turns, travelling[strand].get()});
    const std::int32_t* received_ids = exchange.ids_to_experts(arena, ids);
    if (strand == 0) {
      EXPECT_EQ(group.begun, Names{"dispatch of ids"}) << "strand 1 has its turn when rows travel";
    }
    const float* received = exchange.to_experts(arena, slots, 1);
    EXPECT_EQ(group.begun, (Names{"dispatch of ids", "dispatch", "dispatch of ids", "dispatch"}));

    std::vector<std::int32_t> found_ids(kTokens);
    std::vector<float> found(kTokens);
    kernels::copy_to_host(context, found_ids.data(), received_ids, kTokens * 4);
    kernels::copy_to_host(context, found.data(), received, kTokens * 4);
    EXPECT_EQ(found_ids, own_ids);
    EXPECT_EQ(found, own_slots);
    if (strand == 0) {
      EXPECT_EQ(group.done, (Names{"dispatch of ids", "dispatch"})) << "strand 1's rows are still on their way";
    }
  });
}

}  // namespace
}  // namespace switchyard
