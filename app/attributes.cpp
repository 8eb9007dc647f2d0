#include "app/attributes.hpp"

#include <fmt/format.h>

namespace switchyard {

std::string other_values(const Attributes& before, const Attributes& now) {
  std::string differences;
  for (const auto& [name, value] : now) {
    const auto found = before.find(name);
    const std::string old_value = found == before.end() ? "not recorded" : found->second;
    if (old_value != value)
      differences += fmt::format("{}{}: {} -> {}", differences.empty() ? "" : ", ", name, old_value, value);
  }
  return differences;
}

}  // namespace switchyard
