#include "app/commands.hpp"

namespace switchyard {

int inspect_command(World&, const std::vector<std::string>&) { return 1; }

}  // namespace switchyard
