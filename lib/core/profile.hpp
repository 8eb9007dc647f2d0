// Where a step's time goes: seconds by phase of the step, and within a phase by kernel. Phases follow one another
// without a gap, so they add up to the step; what a phase does outside its kernels is the rest of its seconds.
#pragma once

#include <map>
#include <string_view>

#include "core/clock.hpp"

namespace switchyard {

struct Profile {
  struct Phase {
    int place = 0;  // in the order in which phases first came
    double seconds = 0;
    std::map<std::string_view, double> kernels;
  };
  std::map<std::string_view, Phase> phases;
  Phase* current = nullptr;  // null: between steps
};

// The phases of one step, one after another. Names are literals. A null profile costs nothing.
class ProfiledStep {
 public:
  explicit ProfiledStep(Profile* profile) : profile_(profile) {}
  ~ProfiledStep() { end(); }
  ProfiledStep(const ProfiledStep&) = delete;
  ProfiledStep& operator=(const ProfiledStep&) = delete;

  void phase(std::string_view name) {
    if (!profile_) return;
    end();
    const int place = static_cast<int>(profile_->phases.size());
    profile_->current = &profile_->phases.try_emplace(name, Profile::Phase{place, 0, {}}).first->second;
    start_ = seconds_now();
  }

 private:
  void end() {
    if (!profile_ || !profile_->current) return;
    profile_->current->seconds += seconds_now() - start_;
    profile_->current = nullptr;
  }

  Profile* profile_;
  double start_ = 0;
};

// A kernel, or the exchange, from construction to destruction. They do not nest.
class ProfiledKernel {
 public:
  ProfiledKernel(Profile* profile, std::string_view name) : phase_(profile ? profile->current : nullptr), name_(name) {
    if (phase_) start_ = seconds_now();
  }
  ~ProfiledKernel() {
    if (phase_) phase_->kernels[name_] += seconds_now() - start_;
  }
  ProfiledKernel(const ProfiledKernel&) = delete;
  ProfiledKernel& operator=(const ProfiledKernel&) = delete;

 private:
  Profile::Phase* phase_;
  std::string_view name_;
  double start_ = 0;
};

}  // namespace switchyard
