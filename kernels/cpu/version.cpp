#include "kernels/api/version.hpp"

#include <dnnl.h>
#include <fmt/format.h>

namespace switchyard::kernels {

std::string library_version() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace switchyard::kernels
