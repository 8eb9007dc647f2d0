#include "app/share_bars.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace switchyard {

namespace {

constexpr std::size_t kNumbered = 8;  // shares that have room for a percentage beside the bar
constexpr std::size_t kBarsInLine = 32, kBars = 128;

constexpr std::array kUnicodeBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array kAsciiBars = {".", ":", "-", "=", "+", "*", "#", "@"};

// Four eighths are an even share.
const char* bar(double over_even, bool unicode) {
  if (over_even <= 0) return unicode ? "·" : "x";
  const auto height = static_cast<std::size_t>(std::clamp(std::lround(4 * over_even), 1L, 8L));
  return unicode ? kUnicodeBars[height - 1] : kAsciiBars[height - 1];
}

std::size_t shares_per_bar(std::size_t shares) { return (shares + kBars - 1) / kBars; }

}  // namespace

std::string bars_heading(std::size_t shares, std::string_view of_what) {
  return fmt::format("share of tokens by {}{}", of_what, shares <= kNumbered ? ", %" : "");
}

// A heading or the bars under it, whichever is wider. A numbered bar is "▃ 12 ".
std::size_t bars_width(std::size_t shares) {
  return std::max<std::size_t>(28, shares <= kNumbered ? 5 * shares - 1 : std::min(shares, kBarsInLine));
}

std::vector<std::string> bar_lines(const std::vector<double>& share, bool unicode) {
  const std::size_t shares = share.size(), per_bar = shares_per_bar(shares), width = bars_width(shares);
  const bool numbered = shares <= kNumbered;
  std::vector<std::string> lines;
  std::size_t columns = 0;
  for (std::size_t first = 0; first < shares; first += per_bar) {
    const std::size_t last = std::min(shares, first + per_bar), bars = first / per_bar;
    if (bars % kBarsInLine == 0) {
      if (!lines.empty()) lines.back().append(width - columns, ' ');
      lines.emplace_back();
      columns = 0;
    }
    const double sum = std::accumulate(share.begin() + static_cast<std::ptrdiff_t>(first),
                                       share.begin() + static_cast<std::ptrdiff_t>(last), 0.0);
    const double even = static_cast<double>(last - first) / static_cast<double>(shares);
    lines.back() += bar(sum / even, unicode);
    ++columns;
    if (!numbered) continue;
    lines.back() += fmt::format("{:>3.0f}{}", 100 * sum, last < shares ? " " : "");
    columns += last < shares ? 4 : 3;
  }
  lines.back().append(width - columns, ' ');
  return lines;
}

std::string bars_legend(std::size_t shares, std::string_view many, bool unicode) {
  const std::size_t per_bar = shares_per_bar(shares);
  return fmt::format("{} an even share, {} twice that or more, {} none{}", bar(1, unicode), bar(2, unicode),
                     bar(0, unicode), per_bar > 1 ? fmt::format("; {} {} a bar", per_bar, many) : "");
}

}  // namespace switchyard
