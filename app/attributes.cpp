#include "app/attributes.hpp"

#include <regex>

#include <fmt/format.h>

namespace switchyard {

namespace {

// Eight digits of a hash tell two apart at sight.
std::string with_short_hash(const std::string& value) {
  static const std::regex hash("([0-9a-f]{8})[0-9a-f]{24}");
  return std::regex_replace(value, hash, "$1...");
}

}  // namespace

std::string other_values(const Attributes& before, const Attributes& now) {
  std::string differences;
  for (const auto& [name, value] : now) {
    const auto found = before.find(name);
    const std::string old_value = found == before.end() ? "not recorded" : found->second;
    if (old_value != value)
      differences += fmt::format("{}{}: {} -> {}", differences.empty() ? "" : ", ", name, with_short_hash(old_value),
                                 with_short_hash(value));
  }
  return differences;
}

}  // namespace switchyard
