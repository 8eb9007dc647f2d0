// The routers there are: what ffn.router may be, and the rows of the table in routing/router.cpp.
#pragma once

#include <array>
#include <string_view>

namespace switchyard {

inline constexpr std::array kRouterNames = {"switch",        "top_k",     "noisy_top_k", "loss_free",
                                            "expert_choice", "patch_sum", "random",      "hash"};

// Whether a token visits ffn.top_k experts.
constexpr bool takes_top_k(std::string_view router) {
  return router == "top_k" || router == "noisy_top_k" || router == "loss_free";
}

}  // namespace switchyard
