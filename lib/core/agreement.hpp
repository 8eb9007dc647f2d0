// How ranks agree on errors: a failure on any rank is thrown on every rank, so that none waits for another that left.
#pragma once

#include <exception>
#include <new>
#include <optional>
#include <string>
#include <type_traits>

#include "core/error.hpp"
#include "core/ranks.hpp"

namespace switchyard {

// An error that every rank threw: rank 0 speaks for all. Any other error, such as a rank that did not come, leaves the
// ranks without knowledge of each other, and ends the program on all of them.
class AgreedError : public Error {
 public:
  using Error::Error;
};

// Collective. Throws the same AgreedError on every rank if any rank's code is not kOk. It names the ranks where they
// are not all of one mind.
void agree(Ranks& ranks, std::string_view what, const std::string& problem, ExitCode code);

// Collective. Runs `body` on every rank, then agrees. body must not wait for other ranks. `what` is for the message
// when a rank does not come.
template <typename Body>
auto together(Ranks& ranks, std::string_view what, const Body& body) -> decltype(body()) {
  using Result = decltype(body());
  constexpr bool kHasResult = !std::is_void_v<Result>;
  std::optional<std::conditional_t<kHasResult, Result, char>> result;
  std::string problem;
  ExitCode code = ExitCode::kOk;
  try {
    if constexpr (kHasResult)
      result.emplace(body());
    else
      body();
  } catch (const Error& error) {
    problem = error.what();
    code = error.code();
  } catch (const std::bad_alloc&) {
    problem = "there is not enough memory";
    code = ExitCode::kFailure;
  } catch (const std::exception& error) {
    problem = error.what();
    code = ExitCode::kFailure;
  }
  agree(ranks, what, problem, code);
  if constexpr (kHasResult) return std::move(*result);
}

// Collective. The same for work that only rank 0 does.
template <typename Body>
void on_root(Ranks& ranks, std::string_view what, const Body& body) {
  together(ranks, what, [&] {
    if (ranks.rank() == 0) body();
  });
}

}  // namespace switchyard
