// What people wrote into a file goes along when that is written anew.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/h5.hpp"

namespace switchyard::h5 {

// Copies, as they are, the attributes, objects and links of root group `from` that root group `to` of another file
// lacks, and so on in every group and dataset that both have. Links to an object that both have lead to that. `reserve`
// makes room for so many bytes more. Returns the paths of what HDF5 cannot carry over to another file: references to
// objects, in attributes and datasets, and links of a user's own kind.
std::vector<std::string> copy_missing(hid_t from, hid_t to, const std::filesystem::path& where,
                                      const std::function<void(Index)>& reserve);

}  // namespace switchyard::h5
