// Who shares what: the world, this rank's expert group (P consecutive ranks that together hold every expert once) and
// its replicas (the ranks that hold the same experts, one in each group).
#pragma once

#include <memory>

#include "comm/communicator.hpp"

namespace switchyard {

class Mesh {
 public:
  // expert_parallel = P divides the world's size. Collective.
  Mesh(std::unique_ptr<Communicator> world, Index expert_parallel)
      : world_(std::move(world)),
        expert_group_(world_->split(world_->rank() / static_cast<int>(expert_parallel))),
        replicas_(world_->split(world_->rank() % static_cast<int>(expert_parallel))) {}

  Communicator& world() const { return *world_; }
  Communicator& expert_group() const { return *expert_group_; }
  Communicator& replicas() const { return *replicas_; }

 private:
  std::unique_ptr<Communicator> world_, expert_group_, replicas_;
};

}  // namespace switchyard
