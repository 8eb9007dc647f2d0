// Which checkpoint a run goes on from (--resume) or begins with (train.start), and whether it may.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "app/world.hpp"
#include "train/trainer.hpp"

namespace switchyard {

// On rank 0. Fails where a run's results are there that another configuration or other data gave, since rows of two
// runs would stand in one file; and where the run would begin anew although they are finished.
void check_results(const std::filesystem::path& path, const Config& config,
                   const std::map<std::string, std::string>& data, bool begins_anew);

// Collective. Begins with the parameters of train.start, where the configuration names one.
void start_from(World& world, Trainer& trainer, const Config& config);

// Collective. Loads checkpoint `from`, or the newest one in the folder that verifies, and returns its path: nothing
// where the folder holds none, and then the run begins as start_from has it. Fails where the checkpoint does not
// verify, none of the folder does, or it is of a run with another configuration, other data or fewer steps; warns where
// it was saved with another `machine`, attributes of what bits depend on.
std::optional<std::filesystem::path> resume(World& world, Trainer& trainer, const Config& config,
                                            const std::filesystem::path& folder, const std::string& from,
                                            const std::map<std::string, std::string>& machine);

}  // namespace switchyard
