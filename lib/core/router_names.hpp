// The routers there are: what ffn.router may be, and the rows of the table in routing/router.cpp.
#pragma once

#include <array>

namespace switchyard {

inline constexpr std::array kRouterNames = {"switch",        "top_k",     "noisy_top_k", "loss_free",
                                            "expert_choice", "patch_sum", "random",      "hash"};

}  // namespace switchyard
