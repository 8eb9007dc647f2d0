// How tokens are shared out among experts or leaves, as a line of bars.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// "share of tokens by expert, %", without the unit where bars have no numbers.
std::string bars_heading(std::size_t shares, std::string_view of_what);

// Columns that bar_lines() and bars_heading() take.
std::size_t bars_width(std::size_t shares);

// A bar for each share, or for several where there are very many; with percentages where there are few. At most four
// lines, each bars_width() columns wide.
std::vector<std::string> bar_lines(const std::vector<double>& share, bool unicode);

// What a bar's height says; `many`: "experts".
std::string bars_legend(std::size_t shares, std::string_view many, bool unicode);

}  // namespace switchyard
