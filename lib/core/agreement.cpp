#include "core/agreement.hpp"

#include <algorithm>
#include <vector>

namespace switchyard {

namespace {

// What rank 0 says for all. It needs no name for what it found alone, nor where all ranks found the same.
std::string report_of(const Ranks& ranks, const std::vector<std::string>& problems) {
  if (std::all_of(problems.begin(), problems.end(), [&](const std::string& each) {
        return !problems[0].empty() && (each.empty() || each == problems[0]);
      }))
    return problems[0];
  std::string report;
  for (std::size_t i = 0; i < problems.size(); ++i)
    if (!problems[i].empty())
      report += fmt::format("{}rank {}: {}", report.empty() ? "" : "\n", ranks.world_ranks()[i], problems[i]);
  return report;
}

}  // namespace

void agree(Ranks& ranks, std::string_view what, const std::string& problem, ExitCode code) {
  std::vector<int> codes(static_cast<std::size_t>(ranks.size()));
  const int own = static_cast<int>(code);
  all_gather(ranks, what, &own, sizeof(own), codes.data());
  const auto first = std::find_if(codes.begin(), codes.end(), [](int each) { return each != 0; });
  if (first == codes.end()) return;
  const std::vector<std::string> problems = gather_texts(ranks, what, problem);
  const std::string report = ranks.rank() == 0 ? report_of(ranks, problems) : "";
  throw AgreedError(broadcast_text(ranks, what, report), static_cast<ExitCode>(*first));
}

}  // namespace switchyard
