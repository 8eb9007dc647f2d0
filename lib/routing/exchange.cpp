#include "routing/exchange.hpp"

#include <algorithm>
#include <numeric>

#include "comm/collectives.hpp"
#include "kernels/api/device.hpp"

namespace switchyard {

namespace {

// (sources, local experts): how many tokens each source's microbatch sends to each of this rank's experts.
std::vector<std::int32_t> counts_by_source(Communicator& group, const RoutePlan& plan, Index num_local) {
  const auto ranks = static_cast<std::size_t>(group.size());
  const auto local = static_cast<std::size_t>(num_local);
  std::vector<std::int32_t> counts(ranks * local);
  if (plan.all_stay_home) {
    const auto own = plan.tokens_per_expert.begin() + group.rank() * num_local;
    std::copy_n(own, num_local, counts.begin() + group.rank() * num_local);
    return counts;
  }
  if (plan.same_counts_everywhere || ranks == 1) {
    const std::size_t first = static_cast<std::size_t>(group.rank()) * local;
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = plan.tokens_per_expert[first + i % local];
    return counts;
  }
  const std::vector<Index> rows(ranks, num_local);
  all_to_all_v({}, group, "exchange of token counts", plan.tokens_per_expert.data(), rows, counts.data(), rows, 4);
  return counts;
}

}  // namespace

Exchange::Exchange(const Context& context, Communicator& expert_group, const RoutePlan& plan, PhaseSeconds& seconds,
                   const ExchangeTurns& turns)
    : context_(context),
      travelling_(context),
      group_(expert_group),
      seconds_(seconds),
      turns_(turns.turns),
      moves_(expert_group.size() > 1 && !plan.all_stay_home) {
  if (turns_) travelling_.stream = turns.stream;
  const Index ranks = group_.size();
  const Index num_local = plan.num_experts / ranks;
  // Counts are a few bytes: the time they take is the time that others take to come here.
  const ScopedSeconds waiting(seconds_.wait);
  const ProfiledKernel profiled(context_.profile, "token counts");
  const std::vector<std::int32_t> counts = counts_by_source(group_, plan, num_local);

  for (Index owner = 0; owner < ranks; ++owner) {
    const auto first = plan.tokens_per_expert.begin() + owner * num_local;
    send_rows_.push_back(std::accumulate(first, first + num_local, Index{0}));
    num_slots_ += send_rows_.back();
  }
  for (Index source = 0; source < ranks; ++source) {
    const Index before = num_received_;
    for (Index expert = 0; expert < num_local; ++expert) {
      const Index rows = counts[static_cast<std::size_t>(source * num_local + expert)];
      segments_.push_back({expert, source, num_received_, rows});
      num_received_ += rows;
    }
    receive_rows_.push_back(num_received_ - before);
  }
}

void Exchange::send(std::string_view what, const void* from, const std::vector<Index>& send_rows, void* to,
                    const std::vector<Index>& receive_rows, Index row_bytes, const Communicator::Meanwhile& meanwhile) {
  ScopedSeconds exchanging(seconds_.exchange);
  const ProfiledKernel profiled(context_.profile, "exchange");
  kernels::wait_for(travelling_, context_);
  all_to_all_v(travelling_, group_, what, from, send_rows, to, receive_rows, row_bytes, [&] {
    if (!meanwhile) return;
    exchanging.pause();
    meanwhile();
    exchanging.go_on();
  });
}

void Exchange::move(std::string_view what, const void* from, const std::vector<Index>& send_rows, void* to,
                    const std::vector<Index>& receive_rows, Index row_bytes) {
  send(what, from, send_rows, to, receive_rows, row_bytes, [this] { give_turn(); });
  kernels::wait_for(context_, travelling_);
}

}  // namespace switchyard
