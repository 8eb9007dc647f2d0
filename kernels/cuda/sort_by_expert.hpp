// The counting sort for operations that have a workspace of their own.
#pragma once

#include "kernels/api/routing.hpp"

namespace switchyard::kernels::cuda {

Index sort_room(Index assignments, Index num_experts);  // elements of `room`
void sort_by_expert(const Context& context, const SortByExpert& args, std::int32_t* room);

}  // namespace switchyard::kernels::cuda
