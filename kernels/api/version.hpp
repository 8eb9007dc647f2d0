#pragma once

#include <string>

namespace switchyard::kernels {

// The libraries whose products these kernels call: "oneDNN 2.6.3".
std::string library_version();

}  // namespace switchyard::kernels
