// What `switchyard bench --help` and `switchyard bench NAME --help` print.
#pragma once

#include <string>

namespace switchyard {

// name: a benchmark, whose part alone is printed; empty: all of them.
std::string bench_help(const std::string& name);

}  // namespace switchyard
