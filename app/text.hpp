// Small pieces of text for people.
#pragma once

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "core/types.hpp"

namespace switchyard {

// 12798490 -> "12,798,490"
inline std::string group_digits(Index number) {
  std::string text = std::to_string(number);
  for (auto place = static_cast<Index>(text.size()) - 3; place > (number < 0 ? 1 : 0); place -= 3)
    text.insert(static_cast<std::size_t>(place), ",");
  return text;
}

// Text from a file, for a terminal, on which a control character may do anything.
inline std::string printable(std::string text) {
  for (char& c : text)
    if ((c >= 0 && c < ' ' && c != '\n') || c == '\x7f') c = '?';
  return text;
}

// (1, "rank") -> "1 rank", (2, "rank") -> "2 ranks"
inline std::string plural(Index count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

// A whole text as a number; NaN where it is none.
inline double number_or_nan(const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : std::numeric_limits<double>::quiet_NaN();
}

// "exit code 1", "ended by signal 9 (Killed)": as a shell has it.
inline std::string describe_exit(int code) {
  const int signal = code - 128;
  return signal > 0 && signal < NSIG ? fmt::format("ended by signal {} ({})", signal, strsignal(signal))
                                     : fmt::format("exit code {}", code);
}

// "3:05", "2:03:05"
inline std::string duration(double seconds) {
  const auto whole = static_cast<Index>((seconds > 0 ? seconds : 0) + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

// Whether the terminal shows more than ASCII. As the C library would choose: the first of these that is set decides.
inline bool speaks_unicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value && *value) return std::strstr(value, "UTF-8") || std::strstr(value, "utf8");
  }
  return false;
}

}  // namespace switchyard
