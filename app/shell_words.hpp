// Words of a command line, as a POSIX shell has them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// White space separates words but where it stands in quotes or behind a backslash: a 'b c' "d e" f\ g are four words.
// In double quotes a backslash stands for itself but before $, `, ", a backslash and the end of a line. Nothing is
// expanded. Throws Error (kUsage) where a quote is not closed or a backslash ends the text; `what` names the text.
std::vector<std::string> split_shell_words(std::string_view what, std::string_view text);

// One line that split_shell_words(), and a shell, part into these words again.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace switchyard
