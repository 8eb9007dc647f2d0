#include "app/shell_words.hpp"

#include <optional>

#include "core/error.hpp"

namespace switchyard {

namespace {

bool is_one_of(char c, std::string_view set) { return set.find(c) != std::string_view::npos; }

std::string shell_word(const std::string& word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_{}";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::vector<std::string> split_shell_words(std::string_view what, std::string_view text) {
  std::vector<std::string> words;
  std::optional<std::string> word;  // "" where quotes hold nothing
  char quote = 0;                   // the one that is open
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char next = i + 1 < text.size() ? text[i + 1] : 0;
    if (quote == 0 && is_one_of(c, " \t\n")) {
      if (word) words.push_back(*word);
      word.reset();
    } else if (c == '\\' && (quote == 0 || (quote == '"' && is_one_of(next, "$`\"\\\n")))) {
      if (++i == text.size()) fail_usage("{} = {}: nothing follows the last backslash: write two for one", what, text);
      if (next != '\n') word = word.value_or("") + next;
    } else if (c == quote) {
      quote = 0;
    } else if (quote == 0 && is_one_of(c, "'\"")) {
      quote = c;
      word = word.value_or("");
    } else {
      word = word.value_or("") + c;
    }
  }
  if (quote != 0)
    fail_usage("{} = {}: the last {} is not closed: close it, or write \\{} for the character", what, text, quote,
               quote);
  if (word) words.push_back(*word);
  return words;
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + shell_word(word);
  return line;
}

}  // namespace switchyard
