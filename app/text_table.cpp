#include "app/text_table.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace switchyard {

namespace {

// Characters of UTF-8 text.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

}  // namespace

void TextTable::print(bool markdown) const {
  std::vector<std::size_t> widths(left_.size(), markdown ? 3 : 0);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line = markdown ? "|" : "";
    for (std::size_t i = 0; i < left_.size(); ++i) {
      const std::string padding(widths[i] - width_of(rows_[r][i]), ' ');
      if (markdown || i > 0) line += markdown ? " " : "  ";
      line += left_[i] ? rows_[r][i] + padding : padding + rows_[r][i];
      if (markdown) line += " |";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
    if (!markdown || r > 0) continue;
    line = "|";
    for (std::size_t i = 0; i < left_.size(); ++i)
      line += left_[i] ? std::string(widths[i] + 2, '-') + "|" : std::string(widths[i] + 1, '-') + ":|";
    fmt::print("{}\n", line);
  }
}

}  // namespace switchyard
