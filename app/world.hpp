// The ranks that run a subcommand, and how they agree on errors.
#pragma once

#include <memory>
#include <new>
#include <optional>
#include <string>

#include "comm/collectives.hpp"
#include "comm/communicator.hpp"
#include "config/config.hpp"
#include "core/error.hpp"

namespace switchyard {

// An error that every rank threw: rank 0 speaks for all. Any other error ends the other ranks too (MPI_Abort).
class AgreedError : public Error {
 public:
  using Error::Error;
};

// MPI from construction to destruction.
class World {
 public:
  World(int* argc, char*** argv);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return comm_->rank(); }
  int size() const { return comm_->size(); }
  bool speaks() const { return rank() == 0; }
  Communicator& comm() { return *comm_; }

  // Runs `body` on every rank. If it fails anywhere, every rank throws the same AgreedError, which names the ranks
  // where they are not all of one mind. body must not wait for other ranks.
  template <typename Body>
  auto together(const Body& body) -> decltype(body()) {
    std::string problem;
    ExitCode code = ExitCode::kOk;
    using Result = decltype(body());
    if constexpr (std::is_void_v<Result>) {
      capture(body, problem, code);
      agree(problem, code);
    } else {
      std::optional<Result> result;
      capture([&] { result.emplace(body()); }, problem, code);
      agree(problem, code);
      return std::move(*result);
    }
  }

  // For collective work whose failures are the same on every rank.
  template <typename Body>
  auto alike(const Body& body) -> decltype(body()) {
    try {
      return body();
    } catch (const Error& error) {
      throw AgreedError(error.what(), error.code());
    }
  }

  // For training and evaluating: a loss that is not finite is so on every rank, any other failure may be one rank's.
  template <typename Body>
  auto diverging_alike(const Body& body) -> decltype(body()) {
    try {
      return body();
    } catch (const Error& error) {
      if (error.code() != ExitCode::kDiverged) throw;
      throw AgreedError(error.what(), error.code());
    }
  }

 private:
  template <typename Body>
  static void capture(const Body& body, std::string& problem, ExitCode& code) {
    try {
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
  }
  void agree(const std::string& problem, ExitCode code);

  std::unique_ptr<Communicator> comm_;
};

}  // namespace switchyard
