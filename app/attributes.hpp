// Attributes of results and checkpoints, by name.
#pragma once

#include <map>
#include <string>

namespace switchyard {

using Attributes = std::map<std::string, std::string>;

// What `before` names otherwise than `now`, or not at all: "NAME: OLD -> NEW, ...". Empty where all agree.
std::string other_values(const Attributes& before, const Attributes& now);

}  // namespace switchyard
