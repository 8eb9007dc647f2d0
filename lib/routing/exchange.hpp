// The exchange: rows sorted by expert travel to the experts' owners and back, by an all-to-all over the expert group.
// At the owner they lie by source rank, then by expert: each run of rows is one segment, a pair of expert and source
// microbatch, whose products have the same shapes whatever the number of ranks.
#pragma once

#include <type_traits>
#include <vector>

#include "comm/communicator.hpp"
#include "core/clock.hpp"
#include "core/context.hpp"
#include "kernels/api/arena.hpp"
#include "kernels/api/operand.hpp"
#include "routing/route_plan.hpp"

namespace switchyard {

struct Segment {
  Index local_expert = 0, source = 0;
  Index first_row = 0, rows = 0;  // rows may be 0
};

// Who has a turn while a microbatch's rows travel (null: nobody), and the stream that they travel on (CPU: null). No
// other microbatch's may travel on that one: whoever waits for it would wait for them, too.
struct ExchangeTurns {
  Turns* turns = nullptr;
  void* stream = nullptr;
};

class Exchange {
 public:
  // Agrees on the counts of the plan with the expert group. Collective over it, as is everything below.
  Exchange(const Context& context, Communicator& expert_group, const RoutePlan& plan, PhaseSeconds& seconds,
           const ExchangeTurns& turns = {});

  const std::vector<Segment>& segments() const { return segments_; }
  Index num_slots() const { return num_slots_; }        // rows that this rank sends: its own microbatch's
  Index num_received() const { return num_received_; }  // rows that its experts work on

  // slots: (num_slots, row_bytes), sorted by expert -> received: (num_received, row_bytes). Where nothing
  // travels this returns `slots` itself; otherwise an array of the arena.
  template <typename T>
  T* to_experts(kernels::Arena& arena, T* slots, Index row_size) {
    if (!moves_) return give_turn(), slots;
    auto* received = arena.take<std::remove_const_t<T>>(num_received_ * row_size);
    move("dispatch", slots, send_rows_, received, receive_rows_, row_size * Index{sizeof(T)});
    return received;
  }

  // The same of an id for each row, which is there when the rows sent next are: a few bytes, for which nobody else has
  // a turn.
  std::int32_t* ids_to_experts(kernels::Arena& arena, std::int32_t* ids) {
    if (!moves_) return ids;
    auto* received = arena.take<std::int32_t>(num_received_);
    send("dispatch of ids", ids, send_rows_, received, receive_rows_, Index{sizeof *ids}, {});
    return received;
  }

  // The same of rows of `cols` columns that are fp32 or rounded: one of the two.
  kernels::Operand to_experts(kernels::Arena& arena, const kernels::Operand& slots, Index cols) {
    if (slots.rounded) return {nullptr, to_experts(arena, slots.rounded, kernels::rounded_cols(cols))};
    return to_experts(arena, slots.values, cols);
  }

  // The way back: (num_received, row_size) -> (num_slots, row_size).
  template <typename T>
  T* to_tokens(kernels::Arena& arena, T* rows, Index row_size) {
    if (!moves_) return give_turn(), rows;
    auto* slots = arena.take<std::remove_const_t<T>>(num_slots_ * row_size);
    move("combine", rows, receive_rows_, slots, send_rows_, row_size * Index{sizeof(T)});
    return slots;
  }
  kernels::Operand to_tokens(kernels::Arena& arena, const kernels::Operand& rows, Index cols) {
    if (rows.rounded) return {nullptr, to_tokens(arena, rows.rounded, kernels::rounded_cols(cols))};
    return to_tokens(arena, rows.values, cols);
  }

 private:
  // At every exchange, whether this microbatch's rows travel or not, so that all microbatches do so at the same places.
  void give_turn() const {
    if (turns_ && group_.size() > 1) turns_->give("exchange");
  }
  void send(std::string_view what, const void* from, const std::vector<Index>& send_rows, void* to,
            const std::vector<Index>& receive_rows, Index row_bytes, const Communicator::Meanwhile& meanwhile);
  void move(std::string_view what, const void* from, const std::vector<Index>& send_rows, void* to,
            const std::vector<Index>& receive_rows, Index row_bytes);

  Context context_, travelling_;  // the same but for the stream
  Communicator& group_;
  PhaseSeconds& seconds_;
  Turns* turns_;
  bool moves_;  // a group of one rank, or one that stays home, moves nothing
  std::vector<Segment> segments_;
  std::vector<Index> send_rows_, receive_rows_;  // by rank of the group
  Index num_slots_ = 0, num_received_ = 0;
};

}  // namespace switchyard
