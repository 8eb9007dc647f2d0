// Ranks that exchange memory. Every collective (collectives.hpp) is made of one primitive, a set of transfers between
// this rank and its peers: Isend and Irecv over MPI, memcpy in a world of one, grouped send and receive over NCCL.
// exchange() moves host memory; exchange_arrays() moves that of the device.
#pragma once

#include <functional>
#include <memory>

#include "core/context.hpp"
#include "core/ranks.hpp"
#include "core/types.hpp"

namespace switchyard {

class Communicator : public Ranks {
 public:
  using Meanwhile = std::function<void()>;

  // exchange() of arrays in the context's memory, in order with its stream: what they hold is there for whatever is
  // given to the stream later. meanwhile(): called once, while they travel; it may exchange arrays itself.
  virtual void exchange_arrays(
      const Context& context, std::string_view what, std::span<const Transfer> transfers,
      const Meanwhile& meanwhile = [] {}) = 0;

  // Whether exchange_arrays() keeps neither the host nor other streams' exchanges waiting.
  virtual bool exchanges_overlap() const { return false; }

  // Ranks that give the same color, in their order here. Collective.
  virtual std::unique_ptr<Communicator> split(int color) = 0;

  // Seconds that each collective waits from now on, here and in what is split off later.
  virtual void set_timeout(Index seconds) = 0;

  // The library's own sum over ranks, in whatever order: parallel.reduction = library.
  virtual void all_reduce(const Context& context, float* data, Index size) = 0;

 protected:
  using Ranks::Ranks;
};

// A world of one rank, without MPI.
std::unique_ptr<Communicator> make_local_communicator();

}  // namespace switchyard
